"""The target: a few dozen prompts, without responses, of the kind that the model will be asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from aliquot.pools.arrow import digest_of, read_table, write_kept
from aliquot.pools.cleaning import Dropped, PoolReport
from aliquot.pools.files import READERS, file_of, format_of, read_as
from aliquot.pools.near_duplicates import twins_of
from aliquot.pools.prepare import POOL_FILE, load_prepared, prepare
from aliquot.pools.record import Record
from aliquot.pools.spec import PoolSpec
from aliquot.runtime.wording import counted
from aliquot.store.content import content_hash
from aliquot.types import Pool

DROP, KEEP = "drop", "keep"
_NEAR = 0.9  # of their runs of five words
#: Settings under the name that they have in a pool.
_OF_POOLS = re.compile(r"\bpool\.(?=(?:path|prompt|context|messages|id|task|turn|limit|clean)\b)")


@dataclass(frozen=True, kw_only=True)
class TargetFile(PoolSpec):
    """Names the target prompts: a jsonl, csv or parquet file, compressed or not. No response in it is read.

    Args:
        path: the file; None means that there is no target.
        in_pool: what happens to a target prompt that the pool has too, exactly or nearly: drop leaves it out of the
            target, keep uses it. The pool stays as it is.
    """

    setting: ClassVar[str] = "target"

    name: str = "target"
    path: str | None = None
    in_pool: str = DROP

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_pool not in (DROP, KEEP):
            raise ValueError(f"target.in_pool={self.in_pool} is neither drop nor keep; give one of them")

    def check(self) -> None:
        """Raise ValueError if there is no such file."""
        self._file()

    def identity(self) -> dict[str, object]:
        return {**super().identity(), "in_pool": self.in_pool}

    def content(self) -> str:
        file = self._file()
        return f"{read_as(file, format_of(file) or '')} {content_hash(file)}"

    def place(self) -> str:
        return f"target.path={self.path}"

    def records(self, columns: Collection[str]) -> Iterator[Record]:
        file = self._file()
        yield from READERS[format_of(file) or ""](file, columns)

    def _file(self) -> Path:
        assert self.path is not None
        return file_of(self.path, "target.path")


def prepare_target(source: TargetFile, pool: Pool, directory: Path) -> None:
    """Write the target prompts into `directory` as those of a pool, and what was dropped.

    Args:
        source: where they come from.
        pool: the prompts that they are compared with.
        directory: must exist.

    Raises:
        ValueError: the source cannot be read, a row is bad, two prompts have the same id, or nothing is left.
    """
    try:
        prepare(source, directory)
    except ValueError as error:
        raise ValueError(_OF_POOLS.sub("target.", str(error))) from error
    report = PoolReport.read(directory)
    report = replace(report, hints=[_OF_POOLS.sub("target.", hint) for hint in report.hints])
    target = load_prepared(directory, source.name)
    twins = {row: at for row, (at, _) in twins_of(target.prompts, pool.prompts, _NEAR).items()}
    if twins and source.in_pool == KEEP:
        said = f"{counted(len(twins), 'of its prompts is', 'of its prompts are')} also in the pool, and kept"
        report = replace(report, hints=[*report.hints, said])
    elif twins:
        if len(twins) == len(target):
            raise ValueError(
                f"target.path={source.path}: all {counted(len(target), 'prompt')} of the target are also in pool "
                f"'{pool.name}', so nothing says what else the model will be asked; give other prompts, or set "
                "target.in_pool=keep"
            )
        report = _drop(twins, target, pool, directory, report)
    report.write(directory)


def _drop(twins: Mapping[int, int], target: Pool, pool: Pool, directory: Path, report: PoolReport) -> PoolReport:
    """Leave out the prompts that the pool has too, and return the report with their number."""
    with open(directory / "dropped.jsonl", "a", encoding="utf-8") as file:
        dropped = Dropped(file)
        for row, twin in sorted(twins.items()):
            dropped.add(target.ids[row], "in_pool", of=pool.ids[twin])
    kept = ~np.isin(np.arange(len(target)), list(twins))
    write_kept(directory / POOL_FILE, kept, directory / "kept.partial")
    (directory / "kept.partial").replace(directory / POOL_FILE)
    table = read_table(directory / POOL_FILE)
    missing, left = int(table["task"].null_count), int(kept.sum())
    return replace(
        report,
        prompts=left,
        dropped={**report.dropped, **dropped.counts},
        digest=digest_of(table),
        without_task=missing if missing < left else 0,
    )
