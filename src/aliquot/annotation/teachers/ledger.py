"""A log of a teacher's answers, written as they arrive: a response that was paid for is never requested again.

A ledger is an append-only file with one JSON object per line, shared by every budget and strategy. One process at a
time asks, under a lease, so that no two pay for the same prompt; the waiting processes find its answers. A line left
incomplete by a kill is dropped by the next process that asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from aliquot.annotation.bill import Price
from aliquot.pools.conversation import Turn, turns_of
from aliquot.store.lease import Lease

_SECONDS_BETWEEN_SYNCS = 1.0
#: Endings of an answer that the teacher declined to give.
CONTENT_FILTER, REFUSAL = "content_filter", "refusal"
#: Ending of an answer that reached the token limit.
LENGTH = "length"
_CUT = (LENGTH, "max_tokens", "model_length")  # names on other servers
#: Ending of an answer that was paid for and cannot be read.
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Question:
    """A prompt to send to a teacher.

    Args:
        id: of the prompt.
        prompt: its text.
        examples: prompts with their responses, which are shown before it in this order.
    """

    id: str
    prompt: str
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """The key of the question in the ledger: its text and that of its examples, regardless of ids in a pool."""
        text = json.dumps([*self.examples, self.prompt]) if self.examples else self.prompt
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def turns(self) -> list[Turn]:
        """The turns of the conversation that is sent: the examples, then the prompt."""
        shown = [turn for prompt, response in self.examples for turn in (*turns_of(prompt), ("assistant", response))]
        return [*shown, *turns_of(self.prompt)]


@dataclass(frozen=True)
class Reply:
    """One answer of a teacher, usable or not.

    Args:
        prompt: `Question.key` of the prompt that it answers.
        id: of the prompt, where it was first asked.
        response: the text, with its reasoning in tags; the whole body if the answer cannot be read.
        ending: the reason why it ends: stop, length, content_filter, refusal, unreadable, or another of the server's.
        input_tokens: of the prompt and what the server puts around it.
        output_tokens: of the response, reasoning included. Both counts include an unreadable answer before this one.
        counted: False if the server reported no token counts, so that they are estimates.
        model: the name that the server reports.
        time: when it arrived, UTC.
        price: of its tokens when it was bought; None if none was set, or the answer is older than this field.
    """

    prompt: str
    id: str
    response: str
    ending: str
    input_tokens: int
    output_tokens: int
    counted: bool
    model: str
    time: str
    price: Price | None = None

    def flaw(self, keep_cut: bool) -> str | None:
        """Say in a word why it is not trained on, or None if it is."""
        if self.ending in (CONTENT_FILTER, REFUSAL):
            return "refused"
        if self.ending == UNREADABLE:
            return "unreadable"
        if self.ending.lower() in _CUT and not keep_cut:
            return "cut"
        return None if self.response.strip() else "empty"


class Ledger:
    """Reads the replies in a file; inside a `with` block, adds to them.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replies = dict(_read(path))  #: `Question.key` -> the reply
        self._stack = ExitStack()
        self._file = -1
        self._synced = 0.0

    def __enter__(self) -> Ledger:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._lease = stack.enter_context(
                Lease(self.path.with_suffix(".lease"), what=f"answers for {self.path.name}")
            )
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            stack.callback(os.close, self._file)
            os.ftruncate(self._file, len(_complete(self.path)))
            self.replies = dict(_read(self.path))  # another process may have added replies while this one waited
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            os.fsync(self._file)

    def add(self, *replies: Reply) -> None:
        """Write replies; a kill loses none of them, a power cut at most those of the last second."""
        text = "".join(json.dumps(asdict(reply), ensure_ascii=False) + "\n" for reply in replies).encode()
        while text:
            text = text[os.write(self._file, text) :]
        self.replies.update((reply.prompt, reply) for reply in replies)
        if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file)
            self._lease.check()
            self._synced = time.monotonic()


def now() -> str:
    """Return the current time, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _complete(path: Path) -> bytes:
    """Return the complete lines."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def _read(path: Path) -> Iterator[tuple[str, Reply]]:
    """Yield the replies.

    Raises:
        ValueError: a line is damaged.
    """
    for number, line in enumerate(_complete(path).splitlines(), start=1):
        try:
            values = json.loads(line)
            price = values.pop("price", None)
            reply = Reply(**values, price=Price(**price) if price else None)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {number}: no reply of a teacher ({error}); restore the line, or delete it to ask again"
            ) from error
        yield reply.prompt, reply
