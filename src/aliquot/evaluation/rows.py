"""Held-out rows of a file: their prompts, responses and task labels, read like those of a pool."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from aliquot.pools.columns import Columns
from aliquot.pools.files import READERS, format_of
from aliquot.pools.record import Record
from aliquot.pools.rows import Row, no_answer, prompt_row, response_text

#: The column settings, under the names that pools use.
_OF_POOLS = re.compile(r"\bpool\.(?=(?:prompt|context|messages|id|task)\b)")


class AnsweredRow(NamedTuple):
    """A row of a file and the response in it; None where none is asked for."""

    record: Record
    row: Row
    response: str | None


def records_of(file: Path, columns: Collection[str] | None) -> Iterator[Record]:
    """Yield the rows of a file that are not blank, with at least the named columns."""
    return (record for record in READERS[format_of(file) or ""](file, columns) if not record.blank)


def read_answered(
    file: Path, columns: Columns, limit: int | None, more: Collection[str] = (), answered: bool = True
) -> Iterator[AnsweredRow]:
    """Yield the first `limit` rows of a file.

    Args:
        file: to read.
        columns: by their role.
        limit: None for all rows.
        more: further columns that the records should hold.
        answered: require a response in every row.

    Raises:
        ValueError: a row has no prompt, or no response although one is required.
    """
    for number, record in enumerate(records_of(file, [*columns.for_responses(), *more])):
        if number == limit:
            return
        try:
            row, response = prompt_row(record, columns), response_text(record, columns) if answered else None
        except ValueError as error:
            raise ValueError(_OF_POOLS.sub("evaluate.", str(error))) from error
        if answered and response is None:
            remedy = "" if columns.messages else ", or name the column of the responses with evaluate.response"
            raise ValueError(f"{record.place}: {no_answer(record, columns)}; fill it in or drop the row{remedy}")
        yield AnsweredRow(record, row, response)
