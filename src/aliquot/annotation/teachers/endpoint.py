"""A teacher on any server that speaks OpenAI's protocol: OpenAI, vLLM, Ollama, and most others.

The server's address and key come from the environment, OPENAI_BASE_URL and OPENAI_API_KEY, and are stored nowhere.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from aliquot.annotation.bill import Tariff
from aliquot.annotation.teachers.ledger import Ledger, Question, Reply, now
from aliquot.annotation.teachers.openai_replies import KEY, model_names, read_answer, read_error, reason_of, without_key
from aliquot.annotation.teachers.request_queue import UNREADABLE_TIMES, Again, Asking, CostLimit
from aliquot.annotation.teachers.teacher import Teacher
from aliquot.pools.spec import PoolSpec
from aliquot.runtime.progress import Progress
from aliquot.runtime.signals import interruptible, terminable

if TYPE_CHECKING:
    from collections.abc import Callable

    from openai import AsyncOpenAI, OpenAI

_CHECK_SECONDS = 30.0
_LIMITS = ("max_tokens", "max_completion_tokens")
#: Maximum number of tokens that a chat format may put around a message.
_TOKENS_AROUND = 64


@dataclass(frozen=True, kw_only=True)
class EndpointTeacher(Teacher):
    """Queries a model by its name on the server.

    Args:
        model: its name there. The key of the responses identifies the server by nothing else.
        system: the system prompt, or None.
        token_limit: the field that carries `max_tokens`: the one of most servers, or the one of reasoning models.
        max_cost: maximum total cost of everything that this teacher answers into the store, or None.
        concurrency: number of simultaneous requests.
        requests_per_minute: maximum rate, or None for as many as the server accepts.
        attempts: per prompt, if the server fails or an answer cannot be read.
        timeout: per request, in seconds.
    """

    resources: ClassVar[str | None] = "annotate"

    model: str
    system: str | None = None
    token_limit: str = field(default="max_tokens", metadata={"key": False})
    max_cost: float | None = field(default=None, metadata={"key": False})
    concurrency: int = field(default=8, metadata={"key": False})
    requests_per_minute: float | None = field(default=None, metadata={"key": False})
    attempts: int = field(default=8, metadata={"key": False})
    timeout: float = field(default=600.0, metadata={"key": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.token_limit not in _LIMITS:
            raise ValueError(
                f"{self.setting}.token_limit={self.token_limit} is unknown; choose one of {', '.join(_LIMITS)}"
            )
        for name in ("concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{self.setting}.{name}={getattr(self, name)} is too small; give at least 1")
        for name in ("max_cost", "requests_per_minute", "timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{self.setting}.{name}={value} is not positive; give more than 0")
        if self.max_cost is not None and not self.price_per_million.of(1, 1):
            raise ValueError(
                f"{self.setting}.max_cost={self.max_cost} stops nothing while tokens cost 0; set "
                f"{self.setting}.price_per_million.input and .output"
            )

    @property
    def name(self) -> str:
        return self.model

    def quote(self, num_prompts: int, sample: Sequence[str]) -> float:
        """Return the price of prompts like these with the longest possible responses, capped at `max_cost`."""
        return min(super().quote(num_prompts, sample), math.inf if self.max_cost is None else self.max_cost)

    @property
    def tariff(self) -> Tariff:
        return replace(super().tariff, bytes_around=len((self.system or "").encode()))

    def most(self, ids: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return the most that each answer can cost, with a second request in case the first answer is unreadable."""
        return [self._most(Question("", prompt)) * min(self.attempts, UNREADABLE_TIMES) for prompt in prompts]

    def check(self, source: PoolSpec) -> None:
        self.check_reachable()

    def check_reachable(self) -> None:
        """Raise ValueError if the client, the key or the server is missing, or the server does not know the model."""
        if find_spec("openai") is None:
            raise ValueError(
                f"{self.setting} needs the package openai, which is not installed; run pip install 'aliquot[teacher]'"
            )
        key = os.environ.get(KEY, "")
        if not key:
            raise ValueError(f"{KEY} is not set; export it (if the server needs no key, any word will do)")
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError(f"{KEY} holds blanks, line breaks or letters that no key has; export it again")
        self._check_server()

    def _check_server(self) -> None:
        """Request the model, or else the list of all; neither costs anything, and not every server supports them."""
        import openai

        with openai.OpenAI(timeout=_CHECK_SECONDS) as client:
            try:
                if _get(client, f"/models/{quote(self.model, safe='')}") is not None:
                    return
                known = model_names(_get(client, "/models") or "")
            except openai.APIConnectionError as error:
                raise ValueError(
                    f"the server cannot be reached ({without_key(str(error.__cause__ or error))}); start it, or set "
                    "OPENAI_BASE_URL"
                ) from None
        if known and not any(name == self.model or name.endswith(f"/{self.model}") for name in known):
            raise ValueError(
                f"{self.setting}.model={self.model} is unknown to the server; it has {', '.join(known[:10])}"
                f"{', ...' if len(known) > 10 else ''}"
            )

    def ask(self, questions: Sequence[Question], ledger: Ledger, progress: Progress) -> dict[str, str]:
        """Query the server; the first Ctrl-C or SIGTERM lets pending requests finish, a second Ctrl-C does not."""
        with interruptible() as interrupted, terminable() as terminated:

            def told_to_end() -> bool:
                return interrupted.is_set() or terminated.is_set()

            reasons = asyncio.run(self._ask_all(questions, ledger, progress, told_to_end))
        if terminated.is_set():
            raise SystemExit(128 + signal.SIGTERM)
        if interrupted.is_set():
            raise KeyboardInterrupt
        return reasons

    async def _ask_all(
        self, questions: Sequence[Question], ledger: Ledger, progress: Progress, told_to_end: Callable[[], bool]
    ) -> dict[str, str]:
        import openai

        async with openai.AsyncOpenAI(max_retries=0, timeout=self.timeout) as client:
            asking = Asking(
                ask=lambda question: self._request(client, question),
                most=self._most,
                cost=lambda reply: self.cost([reply]),
                purse=CostLimit(self.max_cost, self.cost(list(ledger.replies.values()))),
                ledger=ledger,
                progress=progress,
                concurrency=self.concurrency,
                requests_per_minute=self.requests_per_minute,
                attempts=self.attempts,
                limit_setting=f"{self.setting}.max_cost",
                told_to_end=told_to_end,
            )
            return await asking.run(questions)

    def _most(self, question: Question) -> float:
        """Return the maximum cost of an answer: no token is shorter than a byte, no response longer than allowed."""
        num_bytes = sum(len(message["content"].encode()) + _TOKENS_AROUND for message in self._messages(question))
        return self.price_per_million.of(num_bytes, self.max_tokens)

    def tokens_in(self, prompt: str) -> int:
        return super().tokens_in(prompt) + super().tokens_in(self.system or "")

    def _messages(self, question: Question) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *({"role": role, "content": text} for role, text in question.turns)]

    async def _request(self, client: AsyncOpenAI, question: Question) -> Reply:
        """Send one request.

        Raises:
            Again: the server failed, or its answer cannot be read.
            Refused: the server does not accept this request.
            ValueError: the server accepts no request.
        """
        import openai

        asked = {"temperature": self.temperature, "seed": self.seed, self.token_limit: self.max_tokens}
        create: Any = client.chat.completions.with_raw_response.create  # the parsed form is not validated
        try:
            async with asyncio.timeout(self.timeout):
                raw = await create(
                    model=self.model,
                    messages=self._messages(question),
                    **{name: value for name, value in asked.items() if value is not None},
                )
        except openai.APIStatusError as error:
            answer = read_error(error)
        except (openai.APITimeoutError, TimeoutError):
            raise Again(f"no answer in {self.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            raise Again(f"the connection failed ({type(error.__cause__ or error).__name__})") from None
        else:
            answer = read_answer(raw.http_response.text)
        estimated_out = min(self.tokens_out(answer.response), self.max_tokens)
        tokens_in, tokens_out = answer.tokens or (self.tokens_asked(question), estimated_out)
        return Reply(
            prompt=question.key,
            id=question.id,
            response=answer.response,
            ending=answer.ending,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            counted=answer.tokens is not None,
            model=answer.model or self.model,
            time=now(),
            price=self.price,
        )


def _get(client: OpenAI, path: str) -> str | None:
    """Return the server's answer, or None if it has none.

    Raises:
        ValueError: the server refuses the key.
    """
    import openai

    try:
        return client.get(path, cast_to=str)
    except openai.APIStatusError as error:
        if error.status_code == 401 and "scope" not in error.message:  # a key for answers only may not list models
            raise ValueError(f"the server refuses the key: {reason_of(error)}; export {KEY} again") from None
        return None
