"""Prepared prompts on disk: one Arrow file of ids, prompts and task labels, read through the page cache.

There is no column for responses, so none can be stored by mistake.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from aliquot.types import Pool

SCHEMA = pa.schema([("id", pa.string()), ("prompt", pa.string()), ("task", pa.string())])
_ROWS_PER_BATCH = 8192


class TextColumn(Sequence[str]):
    """One column of a memory-mapped table, as a sequence of texts: only the rows that are read take memory.

    A slice is a list. Iteration decodes a few thousand rows at a time, so it is as fast as over a list.
    """

    def __init__(self, values: Any) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self._values[index].to_pylist()
        return self._values[operator.index(index)].as_py()

    def __iter__(self) -> Iterator[str]:
        for chunk in self._values.chunks:
            yield from chunk.to_pylist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(list(self), dtype=dtype)

    def __repr__(self) -> str:
        return f"<{len(self):,} texts>"


class TableWriter:
    """Appends rows to an Arrow file."""

    def __init__(self, path: Path) -> None:
        self._rows: list[tuple[str, str, str | None]] = []
        self._writer = pa.ipc.new_file(str(path), SCHEMA)
        self.num_rows = 0

    def append(self, row_id: str, prompt: str, task: str | None) -> None:
        """Add one row."""
        self._rows.append((row_id, prompt, task))
        self.num_rows += 1
        if len(self._rows) == _ROWS_PER_BATCH:
            self._flush()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            columns = [pa.array(values, type=pa.string()) for values in zip(*self._rows, strict=True)]
            self._writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
            self._rows.clear()


def write_kept(source: Path, kept: Bool[np.ndarray, " n"], target: Path) -> None:
    """Write the rows of a table that are kept to another table, one batch at a time."""
    start = 0
    with pa.ipc.new_file(str(target), SCHEMA) as writer:
        for batch in read_table(source).to_batches():
            rows = pa.array(kept[start : start + len(batch)])
            writer.write_batch(batch.filter(rows))
            start += len(batch)


def read_table(path: Path) -> Any:
    """Map a table into memory."""
    path.stat()  # raises a FileNotFoundError that has the name of the file
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def digest_of(table: Any) -> str:
    """Return the SHA-256 of all rows in order, no matter how the file divides them into batches."""
    digest = hashlib.sha256()
    for batch in table.to_batches():
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update("".join("-" if text is None else f"{len(text)}:{text}" for text in row).encode())
    return digest.hexdigest()


def read_pool(path: Path, name: str) -> Pool:
    """Return the prompts of a prepared file; it counts as labeled if every row has a task."""
    table = read_table(path)
    tasks = TextColumn(table["task"]) if len(table) and table["task"].null_count == 0 else None
    return Pool(name, TextColumn(table["id"]), TextColumn(table["prompt"]), tasks)
