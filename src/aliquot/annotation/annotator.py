"""What an annotator is, and the oracle, which returns the responses that the pool itself holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from aliquot.annotation.bill import Bill, Tariff
from aliquot.annotation.returned_rows import ReturnedRow
from aliquot.pools.spec import PoolSpec
from aliquot.types import AnnotatedSet


class Annotator(Protocol):
    """Answers prompts, for a price.

    The annotator sees only the selected prompts. Its responses are used for finetuning and for nothing before it.
    A class that inherits from this one gets methods that suit an annotator which answers at once.
    """

    #: Whether the responses depend on the pool's source; if not, they stay valid where another source has the prompts.
    reads_source: ClassVar[bool] = True
    #: Whether it answers in its own time, so that a run may have to wait: its responses are known by their digest.
    waits: ClassVar[bool] = False
    #: Whether all its responses exist already, so that asking for more than is used wastes nothing.
    at_once: ClassVar[bool] = False
    #: The launcher resources for a job in which it answers, by name; None if answering takes no time.
    resources: ClassVar[str | None] = None

    @property
    def name(self) -> str:
        """The name of the annotator in messages and bills."""
        ...

    def quote(self, num_prompts: int, sample: Sequence[str]) -> float:
        """Return an upper estimate of the cost of responses to prompts like a sample of the pool."""
        ...

    @property
    def tariff(self) -> Tariff:
        """What it charges, as far as that is known before it answers."""
        return Tariff()

    def most(self, ids: Sequence[str], prompts: Sequence[str]) -> Sequence[float]:
        """Return the most that the response to each prompt can cost."""
        return [0.0] * len(ids)

    def paid(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Sequence[float | None]:
        """Return what the response to each prompt has cost; None for one that does not exist. It buys nothing."""
        return [None] * len(ids)

    def buy(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> None:
        """Get the responses that are missing, for `paid` and `answered` to read.

        Raises:
            ValueError: prompts got no answer, and the annotator may not leave them out.
        """

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError for any failure that can be detected before prompts are selected."""
        ...

    def annotate(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> AnnotatedSet:
        """Return responses in the given order: one per id, or fewer if the annotator may leave some out.

        Args:
            source: the source of the prompts; only an oracle reads it.
            ids: of the selected prompts, in the order picked.
            prompts: their text.
            ledger: a directory for what has already been paid for, shared by all budgets and strategies.

        Raises:
            Pending: people have not answered yet.
        """
        ...

    def bill(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Bill:
        """Return the cost of the responses to these prompts, once they exist, regardless of which run paid for them."""
        ...

    def fetch(self) -> None:
        """Bring responses that are ready elsewhere to this machine; called once, before anything reads them."""

    def digest(self, ids: Sequence[str], prompts: Sequence[str]) -> str | None:
        """Return the hash of the responses that are back, or None if they cannot be used yet (`digest_of`)."""

    def answered(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Mapping[str, str]:
        """Return id -> response of those of the prompts that are answered already; asks nobody and buys nothing.

        Raises:
            ValueError: a response that should exist does not.
        """
        return {}

    def doubled(self, ids: Sequence[str], prompts: Sequence[str]) -> Sequence[Sequence[ReturnedRow]]:
        """Return the answers to those of the prompts that several people answered."""
        return ()


@dataclass(frozen=True)
class Oracle(Annotator):
    """Reveals the responses that the pool's own source already holds: for research, where they exist."""

    at_once: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "Oracle"

    def quote(self, num_prompts: int, sample: Sequence[str]) -> float:
        """Return 0: all responses already exist."""
        return 0.0

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError where the source holds no responses."""
        source.check_responses()

    def annotate(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> AnnotatedSet:
        """Look the responses up by id.

        Raises:
            ValueError: the source has no response for one of the ids.
        """
        responses = source.read_responses(ids)
        return AnnotatedSet(list(ids), list(prompts), [responses[row_id] for row_id in ids])

    def answered(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Mapping[str, str]:
        """Return the responses in the source.

        Raises:
            ValueError: a row has none.
        """
        return source.read_responses(ids, to_choose=True)

    def bill(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Bill:
        """Return a bill of zero: all responses already existed."""
        return Bill(by=self.name, num_asked=len(ids), num_responses=len(ids))


def digest_of(responses: Iterable[tuple[str, str]]) -> str:
    """Return the hash of pairs of id and response, in the order of the prompts."""
    return hashlib.sha256(json.dumps(list(responses)).encode()).hexdigest()


def save_annotated(annotated: AnnotatedSet, path: Path) -> None:
    """Write one JSON object per line: id, prompt, response."""
    with open(path, "w", encoding="utf-8") as file:
        for row_id, prompt, response in zip(annotated.ids, annotated.prompts, annotated.responses, strict=True):
            row = {"id": row_id, "prompt": prompt, "response": response}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def load_annotated(path: Path) -> AnnotatedSet:
    """Read what `save_annotated` wrote."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return AnnotatedSet([r["id"] for r in rows], [r["prompt"] for r in rows], [r["response"] for r in rows])
