"""One row of a source, unchanged, with the file and the line (in parquet: the row) that it came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One row as read from its source.

    Args:
        source: the file, or its name in messages.
        number: its line, or its row if the format has no lines; starts at 1.
        fields: the values read, by column.
        columns: the names of all columns of the source.
        sheet_row: the row of a csv file as a spreadsheet counts it, including the header; None for other formats.
        blank: whether the record is a row of a csv file with only empty cells.
    """

    source: str
    number: int
    fields: Mapping[str, object]
    columns: Collection[str]
    sheet_row: int | None = None
    blank: bool = False

    @property
    def place(self) -> str:
        """The location of the row, for messages."""
        return f"{self.source}:{self.number}"
