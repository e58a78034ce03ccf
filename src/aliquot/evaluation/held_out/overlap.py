"""Held-out rows whose prompt also stands in the pool: on them a model shows what it was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aliquot.evaluation.held_out.measures import task_shares
from aliquot.evaluation.held_out.source import KEEP, REFUSE, HeldOutRows, HeldOutSource
from aliquot.pools.near_duplicates import twins_of
from aliquot.runtime.wording import counted
from aliquot.store.store import write_atomic
from aliquot.types import Pool

_FILE = "overlap.json"


@dataclass(frozen=True)
class Twin:
    """A held-out row and the prompt of the pool that it repeats.

    Args:
        row: the number of the row, from 0.
        id: of the row.
        pool_id: of the prompt.
        exact: whether both are equal but for white space.
    """

    row: int
    id: str
    pool_id: str
    exact: bool


@dataclass(frozen=True)
class Compared:
    """What the pool has to do with held-out rows.

    Args:
        twins: the rows that also stand in the pool.
        shares: the share of each task in the pool, or None if it is not labeled.
        num_rows: the held-out rows.
    """

    twins: Sequence[Twin]
    shares: dict[str, float] | None
    num_rows: int = 0

    def kept(self, spec: HeldOutSource, num_rows: int) -> list[int]:
        """Return the rows that are scored."""
        gone = set[int]() if spec.overlap == KEEP else {twin.row for twin in self.twins}
        return [row for row in range(num_rows) if row not in gone]

    def rows(self, spec: HeldOutSource) -> HeldOutRows:
        """Read the rows that are scored."""
        rows = spec.rows()
        return rows.only(self.kept(spec, len(rows)))

    def line(self, spec: HeldOutSource) -> str | None:
        """Say what was found, for the terminal; None if nothing was."""
        if not self.twins or spec.overlap == REFUSE:  # then `check` says it
            return None
        done = "dropped" if spec.overlap != KEEP else "kept, so scores show in part what was trained on"
        return f"{_count(self.twins)}: {done}"

    def check(self, spec: HeldOutSource) -> None:
        """Raise ValueError if there are such rows and they are refused, or if none are left."""
        if spec.overlap == REFUSE and self.twins:
            first = self.twins[0]
            like = "equal to" if first.exact else "nearly equal to"
            raise ValueError(
                f"evaluate.path={spec.path}: {_count(self.twins)}: the first is row {first.row + 1} "
                f"(id {first.id}), {like} prompt {first.pool_id}; take other rows, or set evaluate.overlap=drop to "
                "leave these out, or evaluate.overlap=keep to score them too"
            )
        if not self.kept(spec, self.num_rows):
            raise ValueError(
                f"evaluate.path={spec.path}: all {self.num_rows:,} rows are also in the pool; give rows that the pool "
                "does not have"
            )

    def write(self, directory: Path) -> None:
        """Write what `read` reads."""
        values = {"twins": [asdict(twin) for twin in self.twins], "shares": self.shares, "num_rows": self.num_rows}
        write_atomic(directory / _FILE, json.dumps(values, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Compared:
        """Read what `write` wrote."""
        values = json.loads((directory / _FILE).read_text(encoding="utf-8"))
        return cls([Twin(**twin) for twin in values["twins"]], values["shares"], values["num_rows"])


NOT_COMPARED = Compared((), None)


def compare(rows: HeldOutRows, pool: Pool, near: float) -> Compared:
    """Find the rows whose prompt the pool has, equal but for white space, or with `near` of its runs of five words."""
    twins = [
        Twin(row, rows.ids[row], pool.ids[at], exact)
        for row, (at, exact) in sorted(twins_of(rows.prompts, pool.prompts, near).items())
    ]
    shares = None if pool.tasks is None else task_shares(list(pool.tasks))
    return Compared(twins, shares, len(rows))


def _count(twins: Sequence[Twin]) -> str:
    num_exact = sum(twin.exact for twin in twins)
    return f"{counted(len(twins), 'held-out row is', 'held-out rows are')} also in the pool ({num_exact:,} exactly)"
