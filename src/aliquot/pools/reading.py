"""What is noted while the rows of a pool are read: columns that are named and not there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aliquot.pools.fields import Columns, has_column
from aliquot.pools.files import Record
from aliquot.pools.names import DEFAULTS, listed, near_miss, setting


@dataclass
class Reading:
    """Watches the records of a source go by.

    Args:
        hints: what the user should know of the source, a sentence each.
    """

    hints: list[str] = field(default_factory=list[str])

    def watch(self, records: Iterable[Record], columns: Columns, place: str) -> Iterator[Record]:
        """Pass the records, and look for the columns that are named; `place` is what messages call the source.

        Raises:
            ValueError: no record has a column that the user named; seen behind the last record.
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
            self._judge(missing, list(found), f"{place}: none of {num_rows:,} rows has a column")

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
                self.hints.append(f"column {near!r} is not read; {setting(what, near)} takes it as the {what}")
