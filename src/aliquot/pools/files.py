"""Records from files: jsonl, csv and parquet, one file, a folder or a glob, compressed or not.

Every reader yields the same `Record`, which knows the file and the line (in parquet: the row) it came from, and every
way a file can be broken ends in one ValueError that names both.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from aliquot.sources import locate

COMPRESSIONS = (".gz", ".zst")
#: The endings by which files of a format are found in a folder.
ENDINGS = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv", ".tsv"), "parquet": (".parquet",)}
_ROWS_AT_ONCE = 4096
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it was found.

    Args:
        source: the file, or what stands for it in messages.
        number: its line, or its row where there are no lines; from 1 on.
        fields: the values read, by column.
        columns: the names of all columns there are.
    """

    source: str
    number: int
    fields: Mapping[str, object]
    columns: Collection[str]

    @property
    def place(self) -> str:
        """Say where the row is."""
        return f"{self.source}:{self.number}"


def format_of(path: Path) -> str | None:
    """Return the format that a file's name tells, whatever it is compressed with; None where it tells none."""
    name = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return next((kind for kind, endings in ENDINGS.items() if name.suffix in endings), None)


def find_files(path: str, kind: str) -> list[Path]:
    """Return the files that a path names, sorted by name: the file itself, all of its kind in a folder, or a glob.

    Raises:
        ValueError: there is none, or files of another format are among them.
    """
    place = locate(path)
    if place.is_dir():
        below = (p for p in place.rglob("*") if p.is_file() and not _hidden(p.relative_to(place)))
        files = [file for file in sorted(below) if format_of(file)]
    elif place.is_file():
        files = [place]
    else:
        files = [p for p in map(Path, sorted(glob.glob(str(place), recursive=True))) if p.is_file()]
    if not files:
        found = f"holds no file that ends in {', '.join(ENDINGS[kind])}" if place.is_dir() else "does not exist"
        raise ValueError(
            f"pool.path={path}: {place} {found}; set pool.path to a {kind} file (.gz and .zst are read too), "
            "a folder of them, or a glob in quotes"
        )
    others = [file for file in files if format_of(file) not in (kind, None)]
    if others:
        count = "" if len(files) == 1 else f" ({len(others)} of {len(files)} files)"
        raise ValueError(
            f"pool.path={path}: {others[0]} is {format_of(others[0])}, not {kind}{count}; use "
            f"pool={format_of(others[0])}, or name the {kind} files with a glob such as 'folder/*{ENDINGS[kind][0]}'"
        )
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def read_jsonl(file: Path, columns: Collection[str] | None = None) -> Iterator[Record]:
    """Yield the objects of a file with one on each line; blank lines are no rows."""
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            fields = _parse(line, file, number)
            yield Record(str(file), number, fields, fields.keys())


def _parse(line: str, file: Path, number: int) -> dict[str, object]:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise ValueError(f"{file}:{number}: not a JSON object: {error}; fix or drop the line") from error
    if not isinstance(value, dict):
        raise ValueError(f'{file}:{number}: found {type(value).__name__}, not an object; write {{"prompt": "..."}}')
    return cast(dict[str, object], value)


def read_csv(file: Path, columns: Collection[str] | None = None) -> Iterator[Record]:
    """Yield the rows of a csv file with a header. An empty cell is no value, and an empty column at the end is none.

    Tabs part the cells of a .tsv file, and semicolons those of a .csv file whose header has some and no comma: so do
    spreadsheets where a comma is the sign before decimals.
    """
    csv.field_size_limit(sys.maxsize)  # prompts are longer than the 128 KiB that csv allows
    lines = read_lines(file)
    first = next(lines, "")
    parted = "\t" if ".tsv" in file.suffixes else ";" if ";" in first and "," not in first else ","
    rows = csv.reader(itertools.chain([first], lines), delimiter=parted, strict=True)
    header: list[str] | None = None
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(
                f"{file}:{number}: the row that begins here is no csv ({error}); put cells with commas, quotes or "
                'line breaks into "quotes", and write a quote inside them twice'
            ) from error
        if row is None:
            return
        if header is None:
            header = _header(row, file) if row else None
        elif row:
            if len(row) > len(header) and not any(row[len(header) :]):
                row = row[: len(header)]
            if len(row) != len(header):
                raise ValueError(
                    f"{file}:{number}: {len(row)} cells where the header has {len(header)}; fill in or quote the row"
                )
            cells = {name: cell or None for name, cell in zip(header, row, strict=True)}
            yield Record(str(file), number, cells, header)


def _header(row: list[str], file: Path) -> list[str]:
    """Return the names of the columns, without empty ones at the end."""
    while len(row) > 1 and not row[-1]:
        row = row[:-1]
    twice = sorted({name for name in row if row.count(name) > 1})
    if twice:
        raise ValueError(f"{file}:1: column '{twice[0]}' is in the header twice; give every column its own name")
    return row


def read_parquet(file: Path, columns: Collection[str] | None = None) -> Iterator[Record]:
    """Yield the rows of a parquet file, reading the asked columns only, or all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            names: list[str] = table.schema_arrow.names
            asked = names if columns is None else columns
            tops = [name for name in names if any(c == name or c.startswith(f"{name}.") for c in asked)]
            number = 0
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=tops or names[:1]):
                yield from batch_records(batch, names, str(file), number)
                number += len(batch)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(f"{file}: no readable parquet ({error}); write the file again") from error


def batch_records(batch: Any, names: Collection[str], source: str, start: int) -> Iterator[Record]:
    """Yield the rows of an Arrow batch; `start` rows of the source came before it."""
    try:
        rows: list[dict[str, object]] = batch.to_pylist()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source}:{start + 1}-{start + len(batch)}: a row is no UTF-8 text ({error.reason}); save it as UTF-8"
        ) from error
    for offset, fields in enumerate(rows, start=1):
        yield Record(source, start + offset, fields, names)


READERS: dict[str, Callable[..., Iterator[Record]]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
}


def read_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a text file, decompressing .gz and .zst; a mark of byte order at its beginning is no text.

    Raises:
        ValueError: the file is cut off or damaged, or a line is no UTF-8.
    """
    number = 0
    with _open_binary(file) as lines:
        try:
            for number, line in enumerate(lines, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file}:{number}: the line is no UTF-8 text ({error.reason}); save it as UTF-8"
            ) from error
        except (EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the decompressor
                raise
            raise ValueError(
                f"{file} is damaged or cut off behind line {number} ({error}); compress or download it again"
            ) from error


def _open_binary(file: Path) -> IO[bytes]:
    if file.suffix == ".gz":
        return cast(IO[bytes], gzip.open(file, "rb"))
    if file.suffix == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(str(file), compression="zstd"), _BUFFER)
    return open(file, "rb")
