"""Records from files: jsonl, csv and parquet; one file, a directory or a glob; compressed or not.

Every reader yields the same `Record`. Every way in which a file can be broken ends in one ValueError that names the
file and the line (in parquet: the row).
"""

from __future__ import annotations

import csv
import glob
import itertools
import re
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from aliquot.pools.column_names import listed, refuse_repeated
from aliquot.pools.jsonl import read_jsonl
from aliquot.pools.opening import COMPRESSIONS, first_bytes, read_lines, refuse_named
from aliquot.pools.record import Record
from aliquot.runtime.wording import counted
from aliquot.store.content import locate

#: The file name endings that identify each format in a directory.
ENDINGS = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv", ".tsv"), "parquet": (".parquet",)}
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # Excel writes and reads this line above the header
_JSON = re.compile(r'\s*(?:\[\s*)?(?:\{\s*(?:"|$)|\[\s*$)')  # the beginning of an object, or of an array of objects
_QUOTED = re.compile(r'"[^"]*"')
_ROWS_AT_ONCE = 4096
#: Files that operating systems and office programs create next to others.
_LITTER = ("thumbs.db", "desktop.ini")


def format_of(path: Path) -> str | None:
    """Return the format that a file's name indicates, ignoring compression; None if it indicates none."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return next((kind for kind, endings in ENDINGS.items() if name.suffix.lower() in endings), None)


def read_as(file: Path, kind: str) -> str:
    """Return how a file of a format is read: its name decides where cells of a csv end, so it is part of a key."""
    return "tsv" if ".tsv" in map(str.lower, file.suffixes) else kind


def file_of(path: str, setting: str = "evaluate.path") -> Path:
    """Return the file of rows that a setting names.

    Raises:
        ValueError: there is none, or its name says no format.
    """
    file = locate(path)
    if not file.is_file() or format_of(file) is None:
        raise ValueError(
            f"{setting}={path}: {file} is not a file of prompts; give a .jsonl, .csv or .parquet, which may be "
            "compressed"
        )
    return file


def find_files(path: str, kind: str) -> list[Path]:
    """Return the files that a path names, sorted by name: the file itself, all of its kind in a directory, or a glob.

    Raises:
        ValueError: there are none, or some have another format.
    """
    place = locate(path)
    if place.is_dir():
        below = (p for p in place.rglob("*") if p.is_file() and not _hidden(p.relative_to(place)))
        files = [file for file in sorted(below) if format_of(file)]
    elif place.is_file():
        files = [place]
    else:
        matches = map(Path, sorted(glob.glob(str(place), recursive=True)))
        files = [p for p in matches if p.is_file() and not is_litter(p)]
    if not files:
        found = f"holds no file that ends in {', '.join(ENDINGS[kind])}" if place.is_dir() else "does not exist"
        if place.is_dir() and any(place.rglob("*.json")):
            found += f"; its .json files are read only if a glob names them, as in pool=jsonl 'pool.path={path}/*.json'"
        raise ValueError(
            f"pool.path={path}: {place} {found}; set pool.path to a {kind} file (compressed or not), "
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
    return any(part.startswith((".", "_")) for part in path.parts) or is_litter(path)


def is_litter(path: Path) -> bool:
    """Return whether an operating system or office program created the file: a lock, a thumbnail cache."""
    return path.name.lower() in _LITTER or path.name.startswith(("~$", ".~lock.", "._", ".DS_Store"))


def read_csv(
    file: Path, columns: Collection[str] | None = None, bad: list[ValueError] | None = None
) -> Iterator[Record]:
    """Yield the rows of a csv file with a header. An empty cell counts as missing, and an empty last column is dropped.

    If the file begins with a line such as `sep=;`, that line names the separator. Otherwise a .tsv file is separated by
    tabs. A .csv file is separated by what its header has outside quotes: a comma, or else a semicolon (which
    spreadsheets use where a comma is the decimal separator), a tab or a vertical bar. A row of empty cells is yielded
    too; its fields hold no value.

    Args:
        file: to read.
        columns: the requested ones; all are yielded.
        bad: takes the error of each row with more or fewer cells than the header, and reading continues; None
            raises the first error.
    """
    csv.field_size_limit(sys.maxsize)  # the default, 128 KiB, is too small for prompts
    lines = read_lines(file)
    first = next(lines, "")
    told = _SEPARATOR.fullmatch(first.strip("\r\n"))
    above = 1 if told else 0  # lines above the header
    if told:
        first = next(lines, "")
    if _JSON.match(first):
        raise ValueError(f"{file} holds JSON, not csv; end its name in .jsonl, which pool=jsonl reads")
    parted = told[1] if told else _delimiter(first, file)
    rows = csv.reader(itertools.chain([first], lines), delimiter=parted, strict=True)
    header: list[str] | None = None
    for sheet_row in itertools.count(1):
        number = rows.line_num + above + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(
                f"{file}:{number}: the row that begins here is not csv ({error}); put cells with commas, quotes or "
                'line breaks into "quotes", and write a quote inside them twice'
            ) from error
        if row is None:
            return
        if header is None:
            header = _header(row, f"{file}:{number}") if any(map(str.strip, row)) else None
        elif row:
            if len(row) > len(header) and not any(row[len(header) :]):
                row = row[: len(header)]
            if len(row) != len(header):
                error = ValueError(
                    f"{file}:{number}: {counted(len(row), 'cell')} where the header has {len(header)} "
                    f"({listed(header)}); fill in or quote the row"
                )
                if bad is None:
                    raise error
                bad.append(error)
                continue
            cells = {name: cell or None for name, cell in zip(header, row, strict=True)}
            yield Record(str(file), number, cells, header, sheet_row, blank=not any(map(str.strip, row)))


def _delimiter(first: str, file: Path) -> str:
    if ".tsv" in [suffix.lower() for suffix in file.suffixes]:
        return "\t"
    bare = _QUOTED.sub("", first)
    return next((sign for sign in ",;\t|" if sign in bare), ",")


def _header(row: list[str], place: str) -> list[str]:
    """Return the names of the columns, without empty ones at the end."""
    while len(row) > 1 and not row[-1]:
        row = row[:-1]
    refuse_repeated(row, place)
    return row


def read_parquet(
    file: Path, columns: Collection[str] | None = None, bad: list[ValueError] | None = None
) -> Iterator[Record]:
    """Yield the rows of a parquet file, reading only the requested columns, or all; `bad` is not used here."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    head = first_bytes(file)
    if not head.startswith(b"PAR1"):
        refuse_named(head, file)
    try:
        with pq.ParquetFile(file) as table:
            names: list[str] = table.schema_arrow.names
            refuse_repeated(names, str(file))
            asked = names if columns is None else columns
            tops = [name for name in names if any(c == name or c.startswith(f"{name}.") for c in asked)]
            number = 0
            for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=tops or names[:1]):
                yield from batch_records(batch, names, str(file), number)
                number += len(batch)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(f"{file}: not readable as parquet ({error}); write the file again") from error


def batch_records(batch: Any, names: Collection[str], source: str, start: int) -> Iterator[Record]:
    """Yield the rows of an Arrow batch; `start` rows of the source came before it."""
    try:
        rows: list[dict[str, object]] = batch.to_pylist()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source}:{start + 1}-{start + len(batch)}: a row is not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from error
    except ValueError as error:  # an object inside a row has two fields with the same name
        raise ValueError(
            f"{source}:{start + 1}-{start + len(batch)}: {error}; give every field its own name"
        ) from error
    for offset, fields in enumerate(rows, start=1):
        yield Record(source, start + offset, fields, names)


READERS: dict[str, Callable[..., Iterator[Record]]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
}
