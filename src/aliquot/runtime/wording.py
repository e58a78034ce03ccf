"""Numbers with their nouns, for messages."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number and what it counts; `many` is the plural if it is not `one` with an s.

    >>> counted(1, "row"), counted(2000, "row"), counted(1, "prompt waits", "prompts wait")
    ('1 row', '2,000 rows', '1 prompt waits')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
