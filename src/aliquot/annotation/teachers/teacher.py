"""A language model that writes the responses: the common base of teachers on a server and on this machine.

A teacher's answers are written to a ledger, and responses are read from there. A larger budget, another strategy, or
a resumed run therefore pays only for new prompts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, cast

from aliquot.annotation.annotator import Annotator
from aliquot.annotation.bill import BYTES_PER_TOKEN, Bill, Price, Tariff
from aliquot.annotation.task_tables import write_table
from aliquot.annotation.teachers.examples import Example, Shown
from aliquot.annotation.teachers.ledger import UNREADABLE, Ledger, Question, Reply
from aliquot.annotation.teachers.reasoning import without_reasoning
from aliquot.pools.spec import PoolSpec
from aliquot.runtime.progress import Progress
from aliquot.runtime.wording import counted
from aliquot.store.store import canonical
from aliquot.types import AnnotatedSet

log = logging.getLogger(__name__)

#: Number of reasons spelled out in a message; a file has the others.
_NUM_REASONS = 3
#: Fields of a teacher's key that no answer depends on.
_NOT_ASKED = ("keep_cut", "allow_partial", "keep_reasoning", "code", "examples")  # a question has its examples


@dataclass(frozen=True, kw_only=True)
class Teacher(Annotator):
    """Asks a model once for each prompt.

    Refused, empty and cut-off answers are final: they are counted, not trained on, and not requested again. A prompt
    that got no answer at all stops the run; when the run is repeated, it asks for that prompt again.

    Args:
        temperature: 0 always takes the likeliest token.
        max_tokens: maximum length of a response.
        seed: for sampling at temperatures above 0.
        keep_cut: also train on responses that were cut off at `max_tokens`.
        allow_partial: continue without the prompts that got no answer.
        keep_reasoning: also train on the reasoning before a response; the ledger has it in any case.
        examples: how many prompts that earlier rounds annotated are shown before each prompt, with their responses.
        shown: the examples, once they are known (`Annotate.shown`).
        price_per_million: price of a million tokens. Every answer keeps the price at which it was bought.
    """

    temperature: float | None = 0.0
    max_tokens: int = 512
    seed: int | None = None
    keep_cut: bool = False
    allow_partial: bool = False
    keep_reasoning: bool = field(default=False, metadata={"absent": True})  # as before the field existed
    examples: int = field(default=0, metadata={"absent": 0})
    price_per_million: Price = field(default=Price(), metadata={"key": False})
    shown: Shown = field(
        default_factory=dict[str, Sequence[Example]], repr=False, compare=False, metadata={"key": False}
    )

    def __post_init__(self) -> None:
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"{self.setting}.temperature={self.temperature} is below 0; give 0 or more")
        if self.max_tokens < 1:
            raise ValueError(
                f"{self.setting}.max_tokens={self.max_tokens} leaves no room for a response; give 1 or more"
            )
        if self.examples < 0:
            raise ValueError(f"{self.setting}.examples={self.examples} is below 0; give 0 or more")

    reads_source: ClassVar[bool] = False
    #: Where the config names this teacher, for messages.
    setting: ClassVar[str] = "annotator"
    #: What asking it is called on the terminal.
    activity: ClassVar[str] = "annotate"

    @property
    def name(self) -> str:
        """The name of the teacher in messages and bills."""
        raise NotImplementedError

    def quote(self, num_prompts: int, sample: Sequence[str]) -> float:
        """Return the price of prompts like these, with responses and examples of the maximum length."""
        tokens_in = fmean(map(self.tokens_in, sample))
        tokens_in += self.examples * (fmean(map(_estimated, sample)) + self.max_tokens)
        return self.price_per_million.of(round(num_prompts * tokens_in), num_prompts * self.max_tokens)

    @property
    def tariff(self) -> Tariff:
        return Tariff(per_million=self.price_per_million, max_tokens=self.max_tokens)

    @property
    def price(self) -> Price | None:
        """The price that new answers keep, or None if none is set."""
        return self.price_per_million if self.price_per_million != Price() else None

    def most(self, ids: Sequence[str], prompts: Sequence[str]) -> list[float]:
        raise NotImplementedError

    def paid(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> list[float | None]:
        """Return what each answer has cost; a prompt that stands there twice was asked once."""
        replies, costs, seen = self.ledger(ledger).replies, list[float | None](), set[str]()
        for key in (self._question("", prompt).key for prompt in prompts):
            costs.append((0.0 if key in seen else self.cost([replies[key]])) if key in replies else None)
            seen.add(key)
        return costs

    def buy(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> None:
        questions = [self._question(*pair) for pair in zip(ids, prompts, strict=True)]
        _, missing, failed = self.ask_all(questions, ledger)
        self._check_answered(missing, len(questions), failed)

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError if the teacher cannot be queried; this check sends no prompt from the pool."""
        raise NotImplementedError

    def ask(self, questions: Sequence[Question], ledger: Ledger, progress: Progress) -> dict[str, str]:
        """Ask questions, writing every reply to the ledger as it arrives.

        Returns:
            `Question.key` -> the reason for each missing reply.
        """
        raise NotImplementedError

    def annotate(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> AnnotatedSet:
        """Return the usable responses, asking for those that are not in the ledger yet.

        Raises:
            ValueError: prompts got no answer and `allow_partial` is not set, or no response is usable.
        """
        questions = [self._question(*pair) for pair in zip(ids, prompts, strict=True)]
        book, missing, failed = self.ask_all(questions, ledger)
        bill = self.bill(ids, prompts, ledger)
        log.info("%s", bill)
        if cut := bill.left_out.get("cut"):
            log.info(
                "%s cut at annotator.max_tokens: raise it, or set annotator.keep_cut=true to train on them too",
                counted(cut, "was", "were"),
            )
        self._check_answered(missing, len(questions), failed)
        self._tell_prices([book.replies[q.key] for q in questions if q.key in book.replies])
        replies = {q.key: self.read(book.replies[q.key]) for q in questions if q.key in book.replies}
        if stripped := sum(reply.response != book.replies[key].response for key, reply in replies.items()):
            log.info(
                "%s of %s had reasoning, which is not trained on; annotator.keep_reasoning=true keeps it",
                *(f"{stripped:,}", counted(len(replies), "response")),
            )
        kept = [q for q in questions if q.key in replies and not replies[q.key].flaw(self.keep_cut)]
        if not kept:
            raise ValueError(
                f"none of the {counted(len(questions), 'prompt')} got a response of use from {self.name} ({bill}); its "
                f"answers are in {book.path}: change annotator.model, or raise annotator.max_tokens where they are cut"
            )
        return AnnotatedSet([q.id for q in kept], [q.prompt for q in kept], [replies[q.key].response for q in kept])

    def answered(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Mapping[str, str]:
        """Return the usable responses in the ledger."""
        book = self.ledger(ledger)
        asked = (
            (row_id, book.replies.get(self._question(row_id, prompt).key))
            for row_id, prompt in zip(ids, prompts, strict=True)
        )
        replies = {row_id: self.read(reply) for row_id, reply in asked if reply}
        return {row_id: reply.response for row_id, reply in replies.items() if not reply.flaw(self.keep_cut)}

    def ask_all(self, questions: Sequence[Question], ledger: Path) -> tuple[Ledger, dict[str, str], Path]:
        """Ask the questions that are not in the ledger yet.

        Returns:
            The ledger, the reason for each missing reply by `Question.id`, and the file that lists these.
        """
        book = self.ledger(ledger)
        reasons: dict[str, str] = {}
        if self._open(questions, book):
            with book:
                if waiting := self._open(questions, book):  # another process may have asked while this one waited
                    reasons = self._announce_and_ask(waiting, len({q.key for q in questions}), book)
        missing = {q.id: reasons[q.key] for q in questions if q.key not in book.replies}
        failed = book.path.with_suffix(".failed.csv")
        write_table(failed, ("id", "reason"), list(missing.items()))
        return book, missing, failed

    def bill(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Bill:
        """Return the cost of the answers to these prompts, regardless of which run paid for them."""
        book = self.ledger(ledger)
        asked = [book.replies.get(self._question("", prompt).key) for prompt in prompts]
        flaws = Counter(self.read(reply).flaw(self.keep_cut) if reply else "unanswered" for reply in asked)
        replies = list({reply.prompt: reply for reply in asked if reply}.values())
        return Bill(
            by=self.name,
            num_asked=len(prompts),
            num_responses=flaws.pop(None, 0),
            cost=self.cost(replies),
            input_tokens=sum(reply.input_tokens for reply in replies),
            output_tokens=sum(reply.output_tokens for reply in replies),
            left_out=cast("Mapping[str, int]", dict(flaws)),
        )

    def cost(self, replies: Sequence[Reply]) -> float:
        """Return the cost of replies, each at the price at which it was bought; at the current one if none is known."""
        return sum(
            (reply.price or self.price_per_million).of(reply.input_tokens, reply.output_tokens) for reply in replies
        )

    def ledger(self, folder: Path) -> Ledger:
        """Open the ledger of this teacher: one for everything that an answer depends on.

        It is identified by the class and version, not by its code: editing a message must not buy every answer again.
        """
        what = cast("dict[str, Any]", canonical(self)) | {"type": f"{type(self).__module__}.{type(self).__qualname__}"}
        asked = {name: value for name, value in what.items() if name not in _NOT_ASKED}
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return Ledger(folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', self.name).strip('-.')[-60:]}-{digest[:12]}.jsonl")

    def tokens_in(self, prompt: str) -> int:
        """Estimate how many tokens the model reads, from the bytes."""
        return _estimated(prompt)

    def tokens_out(self, response: str) -> int:
        """Estimate how many tokens the model wrote, from the bytes."""
        return _estimated(response)

    def read(self, reply: Reply) -> Reply:
        """Return a reply with the response that is trained on."""
        if self.keep_reasoning or reply.ending == UNREADABLE:
            return reply
        return replace(reply, response=without_reasoning(reply.response))

    def _question(self, row_id: str, prompt: str) -> Question:
        return Question(row_id, prompt, tuple(self.shown.get(prompt, ())))

    def tokens_asked(self, question: Question) -> int:
        """Estimate how many tokens the model reads: of the prompt and of its examples."""
        return self.tokens_in(question.prompt) + sum(map(_estimated, chain.from_iterable(question.examples)))

    def _open(self, questions: Sequence[Question], book: Ledger) -> list[Question]:
        """Return the prompts that are not in the ledger, each once, in the order picked."""
        return list({q.key: q for q in questions if q.key not in book.replies}.values())

    def _announce_and_ask(self, waiting: Sequence[Question], total: int, book: Ledger) -> dict[str, str]:
        tokens_in, tokens_out = sum(map(self.tokens_asked, waiting)), self.max_tokens * len(waiting)
        cost = self.price_per_million.of(tokens_in, tokens_out)
        log.info(
            "%s: %s of %s to ask; about %s tokens in (%d bytes each), at most %s out: %s",
            *(
                self.name,
                f"{len(waiting):,}",
                counted(total, "prompt"),
                f"{tokens_in:,}",
                BYTES_PER_TOKEN,
                f"{tokens_out:,}",
            ),
            f"at most about {cost:,.2f}" if cost else "no price is set",
        )
        with closing(Progress(self.activity, total, "response", done=total - len(waiting))) as progress:
            return self.ask(waiting, book, progress)

    def _check_answered(self, missing: Mapping[str, str], num_asked: int, failed: Path) -> None:
        if missing and not self.allow_partial:
            ways_out = f"{self.setting}.allow_partial=true continues without them"
            raise ValueError(f"{self.what_failed(missing, num_asked, failed)}, {ways_out}")

    def _tell_prices(self, replies: Sequence[Reply]) -> None:
        """Tell once if answers were bought at another price than today's."""
        others = [reply.price for reply in replies if reply.price and reply.price != self.price_per_million]
        if others:
            first, now = others[0], self.price_per_million
            log.info(
                "%s of %s were bought at another price and keep it, such as %g in and %g out per million tokens; now "
                "it is %g and %g",
                *(
                    f"{len(others):,}",
                    counted(len(replies), "answer"),
                    first.input,
                    first.output,
                    now.input,
                    now.output,
                ),
            )

    def what_failed(self, missing: Mapping[str, str], num_asked: int, failed: Path) -> str:
        """Say how many prompts got no reply, and why."""
        reasons = Counter(missing.values()).most_common(_NUM_REASONS)
        example = {reason: row_id for row_id, reason in missing.items()}
        why = "; ".join(f"{num:,} x {reason} (such as id {example[reason]})" for reason, num in reasons)
        return (
            f"{len(missing):,} of {counted(num_asked, 'prompt')} got no response from {self.name}: {why}. All are "
            f"in {failed}. What was answered is kept: the same command asks for these again"
        )


def _estimated(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)
