"""What an annotator is, and the oracle: it returns the responses that the pool itself holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from aliquot.annotation.bill import Bill
from aliquot.pools.spec import PoolSpec
from aliquot.types import AnnotatedSet


class Annotator(Protocol):
    """Answers prompts, for a price.

    It is told the prompts that were chosen and nothing else; what it answers reaches finetuning and nothing before it.
    One whose responses do not depend on the pool's source says so by a class variable `reads_source = False`: then they
    stay valid where another source has the same prompts.
    """

    @property
    def name(self) -> str:
        """What messages and bills call the annotator."""
        ...

    @property
    def resources(self) -> str | None:
        """What a job asks for in which it answers, by the name in the launcher; None where that takes no time."""
        ...

    def quote(self, num_prompts: int, sample: Sequence[str]) -> float:
        """Return about what responses to so many prompts cost at most, if they are like a sample of the pool's."""
        ...

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError for what can be known to fail before any prompt is chosen."""
        ...

    def annotate(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> AnnotatedSet:
        """Return responses in the order given: one per id, or fewer where the annotator may leave some out.

        Args:
            source: of the prompts; only an oracle reads it.
            ids: of the chosen prompts, in the order picked.
            prompts: their text.
            ledger: a folder for what has been paid for already, which all budgets and strategies share.

        Raises:
            Pending: people have not answered yet.
        """
        ...

    def bill(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Bill:
        """Return what the responses to these prompts cost, once they are there, whichever run paid for them."""
        ...


@dataclass(frozen=True)
class Oracle:
    """Reveals the responses that the pool's own source already holds: for research, where they exist."""

    name: ClassVar[str] = "Oracle"
    resources: ClassVar[None] = None

    def quote(self, num_prompts: int, sample: Sequence[str]) -> float:
        """Return 0: all responses are there already."""
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

    def bill(self, ids: Sequence[str], prompts: Sequence[str], ledger: Path) -> Bill:
        """Return a bill of nothing: all responses were there already."""
        return Bill(by=self.name, num_asked=len(ids), num_responses=len(ids))


def save_annotated(annotated: AnnotatedSet, path: Path) -> None:
    """Write one JSON object a line: id, prompt, response."""
    with open(path, "w", encoding="utf-8") as file:
        for row_id, prompt, response in zip(annotated.ids, annotated.prompts, annotated.responses, strict=True):
            row = {"id": row_id, "prompt": prompt, "response": response}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def load_annotated(path: Path) -> AnnotatedSet:
    """Read what `save_annotated` wrote."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return AnnotatedSet([r["id"] for r in rows], [r["prompt"] for r in rows], [r["response"] for r in rows])
