"""Records from files: jsonl, csv and parquet, one file, a folder or a glob, compressed or not.

Every reader yields the same `Record`, which knows the file and the line (in parquet: the row) it came from, and every
way a file can be broken ends in one ValueError that names both.
"""

from __future__ import annotations

import csv
import glob
import itertools
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from aliquot.pools.names import refuse_repeated
from aliquot.pools.opening import COMPRESSIONS, first_bytes, read_lines, refuse_named
from aliquot.sources import locate
from aliquot.wording import counted

#: The endings by which files of a format are found in a folder.
ENDINGS = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv", ".tsv"), "parquet": (".parquet",)}
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # what Excel writes, and reads, above the header
_QUOTED = re.compile(r'"[^"]*"')
_ROWS_AT_ONCE = 4096
#: Files that systems and office programs leave beside others.
_LITTER = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it was found.

    Args:
        source: the file, or what stands for it in messages.
        number: its line, or its row where there are no lines; from 1 on.
        fields: the values read, by column.
        columns: the names of all columns there are.
        sheet_row: the row of a csv file as a spreadsheet counts them, the header's included; None elsewhere.
        blank: whether the record is a row of a csv file with nothing but empty cells.
    """

    source: str
    number: int
    fields: Mapping[str, object]
    columns: Collection[str]
    sheet_row: int | None = None
    blank: bool = False

    @property
    def place(self) -> str:
        """Say where the row is."""
        return f"{self.source}:{self.number}"


def format_of(path: Path) -> str | None:
    """Return the format that a file's name tells, whatever it is compressed with; None where it tells none."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return next((kind for kind, endings in ENDINGS.items() if name.suffix.lower() in endings), None)


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
        matches = map(Path, sorted(glob.glob(str(place), recursive=True)))
        files = [p for p in matches if p.is_file() and not is_litter(p)]
    if not files:
        found = f"holds no file that ends in {', '.join(ENDINGS[kind])}" if place.is_dir() else "does not exist"
        if place.is_dir() and any(place.rglob("*.json")):
            found += f"; its .json files are read where a glob names them, pool=jsonl 'pool.path={path}/*.json'"
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
    """Return whether a system or an office program left the file beside others: a lock, a cache of pictures."""
    return path.name.lower() in _LITTER or path.name.startswith(("~$", ".~lock.", "._", ".DS_Store"))


def read_jsonl(file: Path, columns: Collection[str] | None = None) -> Iterator[Record]:
    """Yield the objects of a file with one on each line, or of one JSON array; blank lines are no rows."""
    lines = enumerate(read_lines(file), start=1)
    for number, line in lines:
        if line.lstrip().startswith("["):
            yield from _array(line + "".join(line for _, line in lines), file, number)
        elif line.strip():
            fields = _parse(line, file, number)
            yield Record(str(file), number, fields, fields.keys())
            break
    for number, line in lines:
        if line.strip():
            fields = _parse(line, file, number)
            yield Record(str(file), number, fields, fields.keys())


def _parse(line: str, file: Path, number: int) -> dict[str, object]:
    try:
        value: object = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        remedy = "write every object on one line" if line.strip() == "{" else "fix or drop the line"
        raise ValueError(f"{file}:{number}: not a JSON object: {error}; {remedy}") from error
    return _object(value, file, number)


def _array(text: str, file: Path, number: int) -> Iterator[Record]:
    """Yield the objects of a JSON array that begins in line `number`; each is known by the line it begins in."""
    at = _behind_gap(text, text.index("[") + 1)
    counted = 0
    while text[at : at + 1] != "]":
        number, counted = number + text.count("\n", counted, at), at
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            reason = "the file ends before the array does" if at == len(text) else error
            raise ValueError(f"{file}:{number}: not a JSON array: {reason}; fix it or write the file again") from error
        fields = _object(value, file, number)
        yield Record(str(file), number, fields, fields.keys())
        at = _behind_gap(text, end)
    if rest := text[at + 1 :].strip():
        raise ValueError(f"{file}:{number}: {rest[:20]!r} stands behind the end of the array; remove it")


def _behind_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    assert gap is not None  # it may be empty
    return gap.end()


def _object(value: object, file: Path, number: int) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f'{file}:{number}: found {type(value).__name__}, not an object; write {{"prompt": "..."}}')
    return cast(dict[str, object], value)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"key '{twice}' is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
_GAP = re.compile(r"[\s,]*")  # also a comma too many, as some programs leave behind the last item


def read_csv(file: Path, columns: Collection[str] | None = None) -> Iterator[Record]:
    """Yield the rows of a csv file with a header. An empty cell is no value, and an empty column at the end is none.

    What parts the cells is told by the line `sep=;` where the file begins with one. Else tabs part those of a .tsv
    file, and semicolons those of a .csv file whose header has some outside quotes and no comma: so do spreadsheets
    where a comma is the sign before decimals. A row of empty cells is yielded as one: its fields hold no value.
    """
    csv.field_size_limit(sys.maxsize)  # prompts are longer than the 128 KiB that csv allows
    lines = read_lines(file)
    first = next(lines, "")
    told = _SEPARATOR.fullmatch(first.strip("\r\n"))
    above = 1 if told else 0  # lines above the header
    if told:
        first = next(lines, "")
    parted = told[1] if told else _delimiter(first, file)
    rows = csv.reader(itertools.chain([first], lines), delimiter=parted, strict=True)
    header: list[str] | None = None
    for sheet_row in itertools.count(1):
        number = rows.line_num + above + 1
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
            header = _header(row, f"{file}:{number}") if row else None
        elif row:
            if len(row) > len(header) and not any(row[len(header) :]):
                row = row[: len(header)]
            if len(row) != len(header):
                raise ValueError(
                    f"{file}:{number}: {counted(len(row), 'cell')} where the header has {len(header)}; "
                    "fill in or quote the row"
                )
            cells = {name: cell or None for name, cell in zip(header, row, strict=True)}
            yield Record(str(file), number, cells, header, sheet_row, blank=not any(map(str.strip, row)))


def _delimiter(first: str, file: Path) -> str:
    if ".tsv" in [suffix.lower() for suffix in file.suffixes]:
        return "\t"
    bare = _QUOTED.sub("", first)
    return ";" if ";" in bare and "," not in bare else ","


def _header(row: list[str], place: str) -> list[str]:
    """Return the names of the columns, without empty ones at the end."""
    while len(row) > 1 and not row[-1]:
        row = row[:-1]
    refuse_repeated(row, place)
    return row


def read_parquet(file: Path, columns: Collection[str] | None = None) -> Iterator[Record]:
    """Yield the rows of a parquet file, reading the asked columns only, or all."""
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
        raise ValueError(f"{file}: no readable parquet ({error}); write the file again") from error


def batch_records(batch: Any, names: Collection[str], source: str, start: int) -> Iterator[Record]:
    """Yield the rows of an Arrow batch; `start` rows of the source came before it."""
    try:
        rows: list[dict[str, object]] = batch.to_pylist()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source}:{start + 1}-{start + len(batch)}: a row is no UTF-8 text ({error.reason}); save it as UTF-8"
        ) from error
    except ValueError as error:  # an object inside a row has two fields of one name
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
