"""Prepare a pool: read the source once, drop unwanted rows, and store the rest in a file that is memory-mapped.

    rows -> seen before? -> too long? -> in a benchmark? -> near duplicates -> sample -> pool.arrow, report.json

Rows are streamed. Only an id and a digest of each row stay in memory and, to find near duplicates, 4 bytes for each of
its words and some 300 more.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64

from aliquot.pools.arrow import TableWriter, TextColumn, digest_of, read_pool, read_table, write_kept
from aliquot.pools.cleaning import EVALUATE, Dropped, PoolReport
from aliquot.pools.contamination import Benchmarks, BenchmarkText, read_questions
from aliquot.pools.near_duplicates import near_duplicates
from aliquot.pools.reading_notes import Reading
from aliquot.pools.rows import Row
from aliquot.runtime.progress import Progress
from aliquot.runtime.wording import counted
from aliquot.types import Pool

if TYPE_CHECKING:
    from aliquot.pools.spec import PoolSpec

#: The prompts of a prepared pool.
POOL_FILE = "pool.arrow"
_ROWS_AT_ONCE = 1024


def prepare(source: PoolSpec, directory: Path, questions: Sequence[str] = (), *, lasting: bool = True) -> None:
    """Write the prompts of a pool and the dropped rows into `directory`: pool.arrow, report.json, dropped.jsonl.

    Args:
        source: where the rows come from, and how they are cleaned.
        directory: must exist.
        questions: further texts; no prompt may share a run of words with them.
        lasting: whether the directory is kept, so that the user can open problems.csv there.

    Raises:
        ValueError: the source cannot be read, a row is bad, two prompts have the same id, or nothing is left.
    """
    screened = directory / "screened.partial"
    try:
        _prepare(source, directory, questions, screened, Reading(directory / "problems.csv" if lasting else None))
    finally:
        screened.unlink(missing_ok=True)


def _prepare(source: PoolSpec, directory: Path, questions: Sequence[str], screened: Path, reading: Reading) -> None:
    with open(directory / "dropped.jsonl", "w", encoding="utf-8") as file:
        dropped = Dropped(file)
        with TableWriter(screened) as table, Progress("pool", None, "row") as progress:
            counted = _counted(source.rows(reading), progress)
            for row in _decontaminated(source, questions, _distinct(source, counted, dropped), dropped):
                table.append(row.id, row.prompt, row.task)
        dropped.counts.update({"blank": reading.num_blank} if reading.num_blank else {})
        for record, row_id, _ in reading.empty:
            dropped.add(row_id, "empty", place=record.place)
        num_rows = table.num_rows + dropped.counts.total()
        if not table.num_rows:
            lost = "the only row was" if num_rows == 1 else f"all {num_rows:,} rows were"
            found = f"{lost} dropped; loosen pool.clean" if num_rows else "it has no rows; add some"
            raise ValueError(f"{source.place()} holds no prompts: {found}")
        kept = _final_rows(source, screened, dropped)
    if kept.all():
        screened.replace(directory / POOL_FILE)
    else:
        write_kept(screened, kept, directory / "kept.partial")
        (directory / "kept.partial").replace(directory / POOL_FILE)
    table = read_table(directory / POOL_FILE)
    missing = int(table["task"].null_count)
    PoolReport(
        rows=num_rows,
        prompts=int(kept.sum()),
        dropped=dict(dropped.counts),
        digest=digest_of(table),
        without_task=missing if missing < kept.sum() else 0,
        hints=reading.hints,
    ).write(directory)


def load_prepared(directory: Path, name: str) -> Pool:
    """Return the pool that `prepare` wrote, memory-mapped."""
    return read_pool(directory / POOL_FILE, name)


def _counted(rows: Iterator[Row], progress: Progress) -> Iterator[Row]:
    for row in rows:
        progress.update()
        yield row


def _distinct(source: PoolSpec, rows: Iterator[Row], dropped: Dropped) -> Iterator[Row]:
    """Yield the first row with each prompt, except prompts that are too long.

    Raises:
        ValueError: rows with different prompts have the same id, or rows with the same prompt, if both are kept.
    """
    clean = source.clean
    digest_of: dict[str, bytes] = {}  # of dropped rows too: an id must mean one prompt in the whole source
    first_with: dict[bytes, str] = {}
    for row in rows:
        known, first = digest_of.get(row.id), first_with.get(row.digest)
        if known is not None and (known != row.digest or not clean.exact):
            raise _used_twice(source, row)
        digest_of[row.id] = row.digest
        first_with.setdefault(row.digest, row.id)
        if clean.exact and first is not None:
            dropped.add(row.id, "duplicate", of=first)
        elif clean.max_words is not None and (length := len(row.prompt.split())) > clean.max_words:
            dropped.add(row.id, "too_long", words=length)
        else:
            yield row


def _used_twice(source: PoolSpec, row: Row) -> ValueError:
    first = next(other.record for other in source.rows() if other.id == row.id)
    where = f"line {first.number}" if first.source == row.record.source else first.place
    remedy = "give every row its own id, drop the duplicate, or set pool.id=null to name rows by their prompts"
    if not source.clean.exact:
        remedy = "give every row its own id, or let pool.clean.exact=true drop repeated prompts"
    return ValueError(f"{row.record.place}: id '{row.id}' was already used in {where}; {remedy}")


def _decontaminated(source: PoolSpec, questions: Sequence[str], rows: Iterator[Row], dropped: Dropped) -> Iterator[Row]:
    """Yield the rows that share no run of words with a benchmark."""
    clean = source.clean
    if not clean.decontaminate:
        yield from rows
        return
    chosen = (BenchmarkText(EVALUATE, text) for text in questions)
    benchmarks = Benchmarks(itertools.chain(chosen, read_questions(clean.paths())), clean.overlap)
    if not len(benchmarks):
        raise ValueError(
            f"pool.clean.decontaminate={list(clean.decontaminate)} holds no text of {clean.overlap} words or more; "
            "name the files with the questions, or lower pool.clean.overlap"
        )
    while block := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        for row, hit in zip(block, benchmarks.find([row.prompt for row in block]), strict=True):
            if hit is None:
                yield row
            else:
                dropped.add(row.id, "contaminated", question=hit.question.place, shared=hit.shared)


def _final_rows(source: PoolSpec, screened: Path, dropped: Dropped) -> Bool[np.ndarray, " n"]:
    """Return which of the screened rows are kept: those that do not nearly repeat another, and of these the sample."""
    table = read_table(screened)
    ids, kept = TextColumn(table["id"]), np.ones(len(table), dtype=bool)
    if source.clean.near is not None:
        for row, first in near_duplicates(TextColumn(table["prompt"]), source.clean.near).items():
            kept[row] = False
            dropped.add(ids[row], "near_duplicate", of=ids[first])
    if source.sample is not None:
        left = np.flatnonzero(kept)
        if source.sample > len(left):
            prompts = counted(len(left), "prompt that is", "prompts that are")
            lost = counted(dropped.counts.total(), "row was", "rows were")
            raise ValueError(
                f"pool.sample={source.sample} exceeds the {prompts} left of pool '{source.name}' ({lost} dropped); "
                "lower it, or set pool.sample=null for all"
            )
        if source.sample < len(left):
            dropped.counts["not_sampled"] = len(left) - source.sample
            kept[left[_drawn_last([ids[row] for row in left.tolist()], source.sample, source.sample_seed)]] = False
    return kept


def _drawn_last(ids: Sequence[str], num_drawn: int, seed: int) -> Int64[np.ndarray, " m"]:
    """Return the positions that a draw of `num_drawn` rows leaves out.

    The random number of a row depends only on its id, so it does not depend on the order of the rows, and a smaller
    sample is a subset of a larger one.
    """
    lots = (hashlib.blake2b(f"{seed} {row_id}".encode(), digest_size=8).digest() for row_id in ids)
    return np.argsort(np.frombuffer(b"".join(lots), dtype=">u8"), kind="stable")[num_drawn:]


def load_pool(source: PoolSpec) -> Pool:
    """Prepare a pool for this process only; in an experiment, the stage `Prepare` does this once for all processes."""
    with tempfile.TemporaryDirectory() as folder:  # the file stays mapped after its name is deleted
        prepare(source, Path(folder), lasting=False)
        return load_prepared(Path(folder), source.name)
