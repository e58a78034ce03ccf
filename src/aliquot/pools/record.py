"""One row of a source as it was found, which knows the file and the line (in parquet: the row) it came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


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
