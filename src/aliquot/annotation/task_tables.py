"""Tables that tell people what to do; each exists only while there is something to do."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from aliquot.store.store import write_atomic


def write_table(file: Path, head: Sequence[str], rows: Sequence[Sequence[str | None]]) -> None:
    """Write a table as CSV, or remove the file if the table has no rows."""
    if not rows:
        file.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    write_atomic(file, text.getvalue())
