"""Column names in messages: the existing ones, and the one that was probably meant."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Sequence

#: The columns of a prompt, by the name that is used if the user names none.
DEFAULTS = {"prompt": "prompt", "context": None, "id": "id", "task": "task"}


def near_miss(name: str, columns: Iterable[str]) -> str | None:
    """Return the column whose name is most similar to `name`, or None if none is similar.

    A default name is short, and many names are a little like it, so here only case and surrounding signs may differ.

    >>> near_miss("id", ["Id ", "idea"]), near_miss("instrction", ["input", "instruction"])
    ('Id ', 'instruction')
    """
    plain = {_plain(column): column for column in columns}
    if _plain(name) in plain:
        return plain[_plain(name)]
    close = [] if name in DEFAULTS.values() else difflib.get_close_matches(_plain(name), plain, 1, 0.75)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip(" \t\r\n\xa0\u200b\ufeff\"'_").casefold()


def listed(columns: Collection[str]) -> str:
    """Name columns for a message; quotes show blanks at the ends of a name."""
    names = [name if name and name.strip() == name else repr(name) for name in columns]
    return ", ".join([*names[:20], f"and {len(names) - 20} more"] if len(names) > 20 else names) or "none"


def refuse_repeated(columns: Sequence[str], place: str) -> None:
    """Raise ValueError if two columns have the same name: nobody can know which one is meant."""
    if len(set(columns)) < len(columns):
        twice = min(name for name in columns if columns.count(name) > 1)
        raise ValueError(f"{place}: column '{twice}' is there twice; give every column its own name")
