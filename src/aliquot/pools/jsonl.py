"""Records from JSON: a file with one object per line, or with one array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import cast

from aliquot.pools.opening import read_lines
from aliquot.pools.record import Record


def read_jsonl(
    file: Path, columns: Collection[str] | None = None, bad: list[ValueError] | None = None
) -> Iterator[Record]:
    """Yield the objects of a file with one per line, or of one JSON array; blank lines are skipped.

    Args:
        file: to read.
        columns: the requested ones; all are yielded.
        bad: takes the error of each line that is not an object, and reading continues; None raises the first error.
    """
    is_first = True
    lines = enumerate(read_lines(file), start=1)
    for number, line in lines:
        if not line.strip():
            continue
        if is_first and line.lstrip().startswith("["):
            yield from _array(line + "".join(line for _, line in lines), file, number)
            return
        is_first = False
        try:
            fields = _parse(line, file, number)
        except ValueError as error:
            if bad is None:
                raise
            bad.append(error)
        else:
            yield Record(str(file), number, fields, fields.keys())


def _parse(line: str, file: Path, number: int) -> dict[str, object]:
    try:
        value: object = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:  # ValueError is raised also for a number of 5,000 digits
        remedy = "write every object on one line" if line.strip() == "{" else "fix or drop the line"
        raise ValueError(f"{file}:{number}: not a JSON object: {error}; {remedy}") from error
    return _object(value, file, number)


def _array(text: str, file: Path, number: int) -> Iterator[Record]:
    """Yield the objects of a JSON array that begins in line `number`, each with the line in which it begins."""
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
        raise ValueError(f"{file}:{number}: {rest[:20]!r} comes after the end of the array; remove it")


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
_GAP = re.compile(r"[\s,]*")  # also an extra comma, which some programs leave after the last item
