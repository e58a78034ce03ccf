"""Which prompts are removed from a pool before anything else reads it, and the report of the removals."""

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
#: The name of each reason for dropping a row, after a 1 and after other numbers.
_WORDS = {
    "blank": ("row of empty cells", "rows of empty cells"),
    "empty": ("without a prompt",) * 2,
    "too_long": ("too long",) * 2,
    "duplicate": ("duplicate", "duplicates"),
    "contaminated": ("in a benchmark",) * 2,
    "near_duplicate": ("near duplicate", "near duplicates"),
    "in_pool": ("also in the pool",) * 2,
    "not_sampled": ("not in the sample",) * 2,
}


@dataclass(frozen=True)
class Cleaning:
    """Says which prompts to remove from a pool.

    Args:
        exact: drop a prompt that is the same as an earlier one except for white space.
        near: drop a prompt whose Jaccard similarity with an earlier one, over runs of five words, is at least this;
            None does not look for any.
        max_words: drop prompts with more words (separated by white space); None keeps all.
        decontaminate: files and directories with the texts of benchmarks, or the word evaluate for the questions of the
            benchmarks chosen there; a prompt that shares `overlap` consecutive words with one of them is dropped.
        overlap: the number of these words.
        empty: what to do with a row whose prompt is null or empty: refuse ends the run, drop leaves the row out.
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
        empty = {"empty": self.empty} if self.empty != "refuse" else {}  # refuse was once the only behavior
        return {"exact": self.exact, "near": self.near, "max_words": self.max_words, "decontaminate": against, **empty}

    def paths(self) -> list[str]:
        """Return the files and directories among the entries of `decontaminate`."""
        return [path for path in self.decontaminate if path != EVALUATE]


@dataclass(frozen=True)
class PoolReport:
    """How many rows were read, how many are left, and why the others were dropped.

    Args:
        rows: read from the source.
        prompts: left in the pool.
        dropped: reason -> number of rows; dropped.jsonl names each row, except those of empty cells and those left out
            by the sample.
        digest: of ids, prompts and task labels in the pool, in order.
        without_task: rows without a task label, if others have one: then no label counts.
        hints: other facts about the source that the user should know.
    """

    rows: int
    prompts: int
    dropped: dict[str, int]
    digest: str
    without_task: int = 0
    hints: Sequence[str] = ()

    def line(self, pool: str) -> str | None:
        """Say in one line what the pool lost and what else the user should know, or None if there is nothing to say."""
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
    def read(cls, directory: Path) -> PoolReport:
        """Read what `write` wrote."""
        return cls(**json.loads((directory / _REPORT).read_text(encoding="utf-8")))


@dataclass
class Dropped:
    """Counts the rows that are dropped, and records each: its id, the reason, and what it repeats."""

    file: IO[str]
    counts: Counter[str] = field(default_factory=Counter[str])

    def add(self, row_id: str, reason: str, **why: Any) -> None:
        """Note one row."""
        self.counts[reason] += 1
        self.file.write(json.dumps({"id": row_id, "reason": reason, **why}, ensure_ascii=False) + "\n")
