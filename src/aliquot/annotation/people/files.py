"""Annotation by people in files they make themselves: a spreadsheet, a script, an agency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aliquot.annotation.people.people import People
from aliquot.annotation.returned_rows import Problem, ReturnedRow, returned_rows
from aliquot.pools.files import format_of
from aliquot.pools.opening import first_bytes, refuse_named
from aliquot.pools.record import Record


@dataclass(frozen=True, kw_only=True)
class FileAnnotator(People):
    """Reads jsonl, csv and parquet files with an `id` column and a response column, in upper or lower case.

    Args:
        response: name of the response column.
        annotator: name of the annotator column, if there is one.
    """

    response: str = "response"
    annotator: str = "annotator"

    @property
    def name(self) -> str:
        return "people (files)"

    def read_file(self, file: Path, by: str | None) -> Iterator[ReturnedRow | Problem]:
        kind = "jsonl" if file.suffix.lower() == ".json" else format_of(file)
        if kind is None:
            refuse_named(first_bytes(file), file)
            raise ValueError(
                f"{file}: the name does not show the format; return .jsonl, .csv or .parquet files, compressed or not"
            )
        yield from returned_rows(kind, file, lambda row: [self._answer(row, by)])

    def _answer(self, record: Record, by: str | None) -> ReturnedRow | Problem:
        """Read a row; a row without an annotator is attributed to `by`."""
        named = {name: _columns(record, name) for name in ("id", self.response, "prompt", self.annotator)}
        columns = ", ".join(record.columns) or "none"
        if absent := [name for name in ("id", self.response) if not named[name]]:
            remedy = "give every row the id of its prompt" if absent[0] == "id" else "name it with annotator.response"
            return Problem(record.place, "", f"no column '{absent[0]}'; the columns are {columns}; {remedy}")
        if twice := [name for name, found in named.items() if len(found) > 1]:
            return Problem(record.place, "", f"several columns may be '{twice[0]}'; the columns are {columns}")
        values: dict[str, str | None] = {}
        for name, found in named.items():
            value = record.fields.get(found[0]) if found else None
            if name == "id" and isinstance(value, float) and value.is_integer():  # an empty cell makes the column float
                value = int(value)
            if isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            if value is not None and not isinstance(value, str):
                return Problem(
                    record.place, str(values.get("id", "")), f"{name} is {type(value).__name__}, not text; write text"
                )
            values[name] = value
        return ReturnedRow(
            record.place,
            values["id"] or "",
            values[self.response],
            values["prompt"] or None,
            values[self.annotator] or by,
        )


def _columns(record: Record, name: str) -> list[str]:
    """Return the column with this name, or else those that match apart from case and surrounding blanks."""
    if name in record.columns:
        return [name]
    return [column for column in record.columns if column.strip().casefold() == name.casefold()]
