"""Where responses come from. The only module that may ask for one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aliquot.pool import PoolSpec
from aliquot.types import AnnotatedSet


class Annotator(Protocol):
    """Answers prompts, for a price."""

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError for what can be known to fail before any prompt is chosen."""
        ...

    def annotate(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str]) -> AnnotatedSet:
        """Return one response per id, in the order given."""
        ...


@dataclass(frozen=True)
class Oracle:
    """Reveals the responses that the pool's own source already holds: for research, where they exist."""

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError where the source holds no responses."""
        source.check_responses()

    def annotate(self, source: PoolSpec, ids: Sequence[str], prompts: Sequence[str]) -> AnnotatedSet:
        """Look the responses up by id.

        Raises:
            ValueError: the source has no response for one of the ids.
        """
        responses = source.read_responses(ids)
        return AnnotatedSet(list(ids), list(prompts), [responses[row_id] for row_id in ids])


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
