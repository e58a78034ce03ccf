"""What is taken out of a pool before anything looks at it, and the report of what was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from aliquot.runtime.wording import counted
from aliquot.store.content import content_hash, locate
from aliquot.store.store import write_atomic

#: Stands for the benchmarks that the model will be scored on.
EVALUATE = "evaluate"
_REPORT = "report.json"
#: What a reason for dropping a row is called, behind a 1 and behind other numbers.
_WORDS = {
    "blank": ("row of empty cells", "rows of empty cells"),
    "empty": ("without a prompt",) * 2,
    "too_long": ("too long",) * 2,
    "duplicate": ("duplicate", "duplicates"),
    "contaminated": ("in a benchmark",) * 2,
    "near_duplicate": ("near duplicate", "near duplicates"),
    "not_sampled": ("not in the sample",) * 2,
}


@dataclass(frozen=True)
class Cleaning:
    """Says which prompts a pool does without.

    Args:
        exact: drop a prompt that differs from an earlier one in white space at most.
        near: drop a prompt whose Jaccard similarity with an earlier one, over runs of five words, is so much or more;
            None looks for none.
        max_words: drop prompts of more words (as white space parts them); None keeps all.
        decontaminate: files and folders with the texts of benchmarks, or the word evaluate for the questions of those
            chosen there; a prompt that shares `overlap` words in a row with one of them is dropped.
        overlap: how many words that are.
        empty: what becomes of a row whose prompt is null or empty: refuse ends the run, drop leaves the row out.
    """

    exact: bool = True
    near: float | None = None
    max_words: int | None = None
    decontaminate: Sequence[str] = ()
    overlap: int = 13
    empty: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        if self.empty not in ("refuse", "drop"):
            raise ValueError(f"pool.clean.empty={self.empty} is neither refuse nor drop; give one of them")
        if isinstance(self.decontaminate, str) or None in self.decontaminate:
            raise ValueError(
                f"pool.clean.decontaminate={self.decontaminate} must be a list of paths; where it takes evaluate.data, "
                "set that to a folder"
            )
        if self.near is not None and not 0.3 <= self.near <= 1:
            raise ValueError(
                f"pool.clean.near={self.near} is outside 0.3-1; 0.8 drops prompts that are the same but for a few "
                "words, null none"
            )
        for name in ("max_words", "overlap"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"pool.clean.{name}={value} is too small; give at least 1")

    def identity(self) -> dict[str, object]:
        """Name the benchmarks by their content."""
        texts = [content_hash(locate(path)) for path in self.paths()]
        against = {"content": texts, "overlap": self.overlap} if self.decontaminate else None
        empty = {"empty": self.empty} if self.empty != "refuse" else {}  # there was nothing else before
        return {"exact": self.exact, "near": self.near, "max_words": self.max_words, "decontaminate": against, **empty}

    def paths(self) -> list[str]:
        """Return the files and folders among what to decontaminate against."""
        return [path for path in self.decontaminate if path != EVALUATE]


@dataclass(frozen=True)
class Report:
    """How many rows were read, how many are left, and why the others are not.

    Args:
        rows: read from the source.
        prompts: left in the pool.
        dropped: how many for which reason; dropped.jsonl names each but those of empty cells and those left out
            by the sample.
        digest: of ids, prompts and task labels in the pool, in their order.
        without_task: rows without a task label, where others have one: then none counts.
        hints: what else the user should know of the source.
    """

    rows: int
    prompts: int
    dropped: dict[str, int]
    digest: str
    without_task: int = 0
    hints: Sequence[str] = ()

    def line(self, pool: str) -> str | None:
        """Say in one line what the pool lost and what else is to be known, or None where that is nothing."""
        parts = [counted(count, *_WORDS[reason]) for reason, count in self.dropped.items()]
        left = f"{self.prompts:,} of {counted(self.rows, 'row')} {'is' if self.prompts == 1 else 'are'} left"
        said = [f"{left} ({', '.join(parts)})"] if parts else []
        if self.without_task:
            have = "has" if self.without_task == 1 else "have"
            said.append(
                f"{self.without_task:,} of {self.prompts:,} prompts {have} no task, so task labels do not count"
            )
        said.extend(self.hints)
        return f"pool '{pool}': {'; '.join(said)}" if said else None

    def write(self, directory: Path) -> None:
        """Write report.json."""
        write_atomic(directory / _REPORT, json.dumps(self.__dict__, indent=2) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Report:
        """Read what `write` wrote."""
        return cls(**json.loads((directory / _REPORT).read_text(encoding="utf-8")))


@dataclass
class Dropped:
    """Counts the rows that are dropped, and writes down each: its id, why, and what it repeats."""

    file: IO[str]
    counts: Counter[str] = field(default_factory=Counter[str])

    def add(self, row_id: str, reason: str, **why: Any) -> None:
        """Note one row."""
        self.counts[reason] += 1
        self.file.write(json.dumps({"id": row_id, "reason": reason, **why}, ensure_ascii=False) + "\n")
