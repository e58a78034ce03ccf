"""Many simultaneous requests to a server: rate limited, retried where that may help, and never over budget.

The client's own retries stay off: they do not know about unreadable answers, waits that apply to all requests
together, or a user who wants to stop.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from aliquot.annotation.teachers.ledger import UNREADABLE, Ledger, Question, Reply
from aliquot.runtime.progress import Progress

#: The first wait before a request is retried; it doubles each time.
BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 60.0
#: If a server asks to wait longer than this, the run gives up.
LONGEST_WAIT_SECONDS = 600.0
#: How often a prompt is asked while its answers are unreadable; each may have been paid for.
UNREADABLE_TIMES = 2
#: After this many consecutive prompts without an answer, the server is assumed to be down.
_LOST_IN_A_ROW = 8
_SECONDS_BETWEEN_LOOKS = 0.1


class Again(Exception):
    """The request got no answer, but a retry may succeed.

    Args:
        reason: in a few words.
        seconds: to wait, if the server says so.
    """

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Unreadable(Again):
    """The answer cannot be read and does not say what it cost; a retry may cost as much again."""


class Refused(Exception):
    """The server does not accept the request.

    Args:
        reason: in a few words.
        for_prompt: True if the prompt is certainly the cause, False if it may be any setting of the request.
    """

    def __init__(self, reason: str, for_prompt: bool) -> None:
        super().__init__(reason)
        self.for_prompt = for_prompt


class CostLimit:
    """Tracks money spent and the maximum cost of pending requests, which together never exceed the limit."""

    def __init__(self, limit: float | None, spent: float) -> None:
        self.limit = math.inf if limit is None else limit
        self.spent = spent
        self._reserved: dict[object, float] = {}
        self._changed = asyncio.Condition()

    async def reserve(self, most: float) -> object | None:
        """Reserve money, waiting for pending requests if necessary; return None if it does not suffice."""
        async with self._changed:
            while (fits := self.spent + sum(self._reserved.values()) + most > self.limit) and self._reserved:
                await self._changed.wait()
            if fits:
                return None
            ticket = object()
            self._reserved[ticket] = most
            return ticket

    async def settle(self, ticket: object, cost: float) -> None:
        """Pay the actual cost of a request, and release the rest of its reservation."""
        async with self._changed:
            del self._reserved[ticket]
            self.spent += cost
            self._changed.notify_all()


class _Stopped(Exception):
    """No more requests may be sent."""


class Asking:
    """Asks questions until all are answered, the money is spent, the server is down or the user wants to stop.

    Pending requests are then awaited, because they are paid for.

    Args:
        ask: sends one request; raises Again, Refused or, if no request can succeed, ValueError.
        most: returns the maximum cost of the answer to a question.
        cost: returns the actual cost of a reply.
        purse: to pay from.
        ledger: stores the replies; open for writing.
        progress: counts them.
        concurrency: number of simultaneous requests.
        requests_per_minute: maximum rate, or None.
        attempts: per prompt.
        told_to_end: says whether the user wants to stop.
        limit_setting: the name of the setting that limits the cost, for messages.
    """

    def __init__(
        self,
        ask: Callable[[Question], Awaitable[Reply]],
        most: Callable[[Question], float],
        cost: Callable[[Reply], float],
        purse: CostLimit,
        ledger: Ledger,
        progress: Progress,
        concurrency: int,
        requests_per_minute: float | None,
        attempts: int,
        told_to_end: Callable[[], bool],
        limit_setting: str,
    ) -> None:
        self._ask, self._most, self._cost, self._purse = ask, most, cost, purse
        self._ledger, self._progress, self._told_to_end = ledger, progress, told_to_end
        self._concurrency, self._attempts, self._limit_setting = concurrency, attempts, limit_setting
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next_slot = self._paused_until = 0.0
        self._num_lost = 0  # consecutive
        self._unreadable: Counter[str] = Counter()  # `Question.key` -> answers
        self._paid: dict[str, Reply] = {}  # `Question.key` -> an unreadable answer
        self._reasons: dict[str, str] = {}
        self._stop = asyncio.Event()
        self._fatal: Exception | None = None
        self._random = random.Random()  # its own: the global one may have been seeded elsewhere

    async def run(self, questions: Sequence[Question]) -> dict[str, str]:
        """Ask all questions; return `Question.key` -> the reason for each missing reply.

        Raises:
            ValueError: the server accepts no request, or is down.
        """
        waiting = iter(questions)
        watch = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._concurrency, len(questions))):
                    workers.create_task(self._work(waiting))
        finally:
            watch.cancel()
        if self._fatal:
            raise self._fatal
        return self._reasons

    async def _watch(self) -> None:
        while not self._told_to_end():
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        self._stop.set()

    async def _work(self, waiting: Iterator[Question]) -> None:
        for question in waiting:
            while not self._stop.is_set():
                ticket = await self._purse.reserve(self._most(question))
                if ticket is None:
                    self._out_of_money([question, *waiting])
                    return
                cost = 0.0
                try:
                    reply = await self._answer(question)
                    cost = self._keep(reply) if reply else 0.0
                    if not reply or self._is_last_word(question, reply):
                        break
                except _Stopped:
                    return
                except Exception as error:  # even if the disk is full: a task group would wrap it
                    self._fatal = self._fatal or error
                    self._stop.set()
                    return
                finally:
                    await self._purse.settle(ticket, cost)

    def _out_of_money(self, left: Sequence[Question]) -> None:
        reason = (
            f"{self._limit_setting}={self._purse.limit} does not suffice: {self._purse.spent:,.4f} is spent, and one "
            "more could exceed it; raise it to continue"
        )
        self._reasons.update((question.key, reason) for question in left)

    async def _answer(self, question: Question) -> Reply | None:
        """Get a question answered, or establish why it cannot be."""
        reason, attempt = "", 0
        for attempt in range(self._attempts):
            await self._turn()
            try:
                return await self._ask(question)
            except Again as again:
                reason = str(again)
                if isinstance(again, Unreadable) and self._is_last(question):
                    break
                if attempt + 1 < self._attempts:
                    await self._back_off(attempt, again)
            except Refused as refused:
                self._refuse(question, refused)
                return None
        self._reasons[question.key] = f"{reason}, {attempt + 1} times"
        self._lose(reason, attempt + 1)
        return None

    def _lose(self, reason: str, num_attempts: int) -> None:
        """Count a prompt without an answer; give up after many consecutive ones."""
        self._num_lost += 1
        if self._num_lost >= max(_LOST_IN_A_ROW, self._concurrency):
            raise ValueError(
                f"the last {self._num_lost} prompts got no answer in {num_attempts} attempts each: {reason}. What "
                "was answered is kept: run the same command again when the server works"
            )

    def _is_last(self, question: Question) -> bool:
        """Count one more unreadable answer, and tell whether no other may be requested."""
        self._unreadable[question.key] += 1
        return self._unreadable[question.key] >= min(UNREADABLE_TIMES, self._attempts)

    def _keep(self, reply: Reply) -> float:
        """Write a reply, including the tokens of an unreadable one before it; return the cost of the reply alone."""
        cost, before = self._cost(reply), self._paid.get(reply.prompt)
        if before:
            reply = replace(
                reply,
                input_tokens=before.input_tokens + reply.input_tokens,
                output_tokens=before.output_tokens + reply.output_tokens,
            )
        self._ledger.add(reply)
        if reply.ending == UNREADABLE:
            self._paid[reply.prompt] = reply
        return cost

    def _is_last_word(self, question: Question, reply: Reply) -> bool:
        """Tell whether a question is settled; after too many unreadable answers, it is."""
        if reply.ending != UNREADABLE:
            self._num_lost = 0
        elif self._is_last(question):
            self._lose("answers that cannot be read, which are in the ledger", self._unreadable[question.key])
        else:
            return False
        self._progress.update(cost=f"{self._purse.spent + self._cost(reply):,.4f}")
        return True

    def _refuse(self, question: Question, refused: Refused) -> None:
        """Blame the prompt if others were answered, and the request otherwise."""
        if not refused.for_prompt and not self._ledger.replies:
            raise ValueError(
                f"the server accepts no requests: {refused} (first prompt: {question.id}); check model and settings"
            )
        self._reasons[question.key] = str(refused)

    async def _turn(self) -> None:
        """Wait until another request may be sent."""
        slot = max(self._next_slot, time.monotonic())
        self._next_slot = slot + self._interval
        while (wait := max(slot, self._paused_until) - time.monotonic()) > 0:
            await self._sleep(wait)
        if self._stop.is_set():
            raise _Stopped

    async def _back_off(self, attempt: int, again: Again) -> None:
        """Wait as long as the server says, which holds for all requests, or else with random exponential backoff."""
        longest = min(BACKOFF_SECONDS * 2**attempt, _LONGEST_BACKOFF_SECONDS)
        if again.seconds is None:
            await self._sleep(longest * self._random.uniform(0.5, 1))
            return
        if again.seconds > LONGEST_WAIT_SECONDS:
            raise ValueError(
                f"the server asks to wait {again.seconds:,.0f} seconds: {again}. What was answered is kept: run the "
                "same command again after that"
            )
        self._paused_until = max(self._paused_until, time.monotonic() + again.seconds)
        await self._sleep(again.seconds + BACKOFF_SECONDS * self._random.random())

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
        raise _Stopped
