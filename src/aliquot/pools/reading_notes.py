"""Notes taken while a pool is read: columns that are named but do not exist, and rows without a prompt."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aliquot.config.quoting import typed
from aliquot.pools.column_names import DEFAULTS, listed, near_miss
from aliquot.pools.columns import Columns, has_column
from aliquot.pools.record import Record
from aliquot.pools.rows import EmptyPromptError, Row, label, prompt_row
from aliquot.runtime.wording import counted


@dataclass
class Reading:
    """Observes the records of a source while they are read.

    Args:
        problems: the csv file that lists the rows without a prompt; None writes no list.
        hints: what the user should know about the source, one sentence each.
        empty: the rows without a prompt, each with its id.
        num_blank: rows of a csv file that have only empty cells.
        passed_over: role -> number of conversations with a turn of that role before the first user turn, not read.
    """

    problems: Path | None = None
    hints: list[str] = field(default_factory=list[str])
    empty: list[tuple[Record, str, EmptyPromptError]] = field(
        default_factory=list[tuple[Record, str, EmptyPromptError]]
    )
    num_blank: int = 0
    passed_over: Counter[str] = field(default_factory=Counter[str])

    def row(self, record: Record, columns: Columns) -> Row | None:
        """Return the prompt of a record, or None if it has none."""
        if record.blank:
            self.num_blank += 1
            return None
        try:
            row = prompt_row(record, columns)
            self.passed_over.update(set(row.passed_over))
            return row
        except EmptyPromptError as error:
            self.empty.append((record, label(record, columns.id, "id") or "", error))
            return None

    def settle(self, drop: bool) -> None:
        """List the rows without a prompt in the problems file.

        Raises:
            EmptyPromptError: there are such rows, and they should not be dropped.
        """
        for role, count in sorted(self.passed_over.items()):
            have = counted(count, "conversation has", "conversations have")
            self.hints.append(f"{have} a turn of role '{role}' before the user's; it is not read")
        if not self.empty:
            return
        if self.problems:
            with open(self.problems, "w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow(["file", "line", "sheet_row", "id", "problem"])
                table.writerows((r.source, r.number, r.sheet_row, name, "no prompt") for r, name, _ in self.empty)
        if not drop:
            num_more = len(self.empty) - 1
            more = f" (and {counted(num_more, 'more row has', 'more rows have')} no prompt)" if num_more else ""
            listing = f"; {self.problems} lists them" if self.problems else ""
            raise EmptyPromptError(f"{self.empty[0][2]}{more}, or set pool.clean.empty=drop{listing}")

    def watch(self, records: Iterable[Record], columns: Columns, place: str) -> Iterator[Record]:
        """Yield the records, and look for the named columns; `place` is the name of the source in messages.

        Raises:
            ValueError: no record has a column that the user named; raised after the last record.
        """
        missing = {what: name for what in DEFAULTS if what != "prompt" and (name := columns.named(what))}
        found: dict[str, None] = {}
        last: Collection[str] | None = None
        num_rows = 0
        for record in records:
            num_rows += 1
            if missing:
                missing = {what: name for what, name in missing.items() if not has_column(record, name)}
                if record.columns is not last:
                    last = record.columns
                    found.update(dict.fromkeys(last))
            yield record
        if num_rows:
            self._judge(missing, list(found), f"{place}: none of {counted(num_rows, 'row')} has a column")

    def _judge(self, missing: Mapping[str, str], found: list[str], none_has: str) -> None:
        for what, name in missing.items():
            near = near_miss(name, found)
            if name != DEFAULTS[what]:
                hint = f"; did you mean {near!r}" if near else ""
                raise ValueError(
                    f"{none_has} '{name}' (pool.{what}); the columns are {listed(found)}{hint}; correct pool.{what}, "
                    f"or set pool.{what}=null to read none"
                )
            if near:
                self.hints.append(f"column {near!r} is not read; {typed(f'pool.{what}', near)} takes it as the {what}")
