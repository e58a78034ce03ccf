"""People who answer in files of their own making: a spreadsheet, a script, an agency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aliquot.annotators.people import People
from aliquot.annotators.returns import Answer, Problem
from aliquot.pools.files import READERS, Record, format_of


@dataclass(frozen=True, kw_only=True)
class FileAnnotator(People):
    """Reads jsonl, csv and parquet files with a column `id` and one of the responses.

    Args:
        response: column of the response.
        annotator: column of who wrote it, where there is one.
    """

    name: ClassVar[str] = "people (files)"

    response: str = "response"
    annotator: str = "annotator"

    def read_file(self, file: Path, by: str | None) -> Iterator[Answer | Problem]:
        try:
            yield from self._rows(file, by)
        except ValueError as error:  # other files may be read all the same
            yield Problem.of(file, error)

    def _rows(self, file: Path, by: str | None) -> Iterator[Answer | Problem]:
        kind = format_of(file)
        if kind is None:
            raise ValueError(
                f"{file}: the name tells no format; return .jsonl, .csv or .parquet files, compressed or not"
            )
        for record in READERS[kind](file):
            yield self._answer(record, by)

    def _answer(self, record: Record, by: str | None) -> Answer | Problem:
        """Read a row; `by` wrote it where it does not say who."""
        if absent := [name for name in ("id", self.response) if name not in record.columns]:
            columns = ", ".join(record.columns) or "none"
            return Problem(record.place, "", f"no column '{absent[0]}'; the columns are {columns}")
        values: dict[str, str | None] = {}
        for name in ("id", self.response, "prompt", self.annotator):
            value = record.fields.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            if value is not None and not isinstance(value, str):
                return Problem(
                    record.place, str(values.get("id", "")), f"{name} is {type(value).__name__}, not text; write text"
                )
            values[name] = value
        return Answer(
            record.place,
            values["id"] or "",
            values[self.response],
            values["prompt"] or None,
            values[self.annotator] or by,
        )
