"""From a record to its prompt, id and task, or to its response: which columns are read, and what they may hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import cast

from aliquot.config.quoting import typed
from aliquot.pools.column_names import listed, near_miss
from aliquot.pools.columns import ABSENT, Columns, found_instead, lookup, shown, whole
from aliquot.pools.conversations import Asked, answer_text, asked_in
from aliquot.pools.record import Record
from aliquot.pools.turns import role_of, turns_of


class EmptyPromptError(ValueError):
    """A row has no prompt, although the column exists."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt that may enter a pool.

    Args:
        record: where it came from.
        id: the source's own, or the hash of the prompt.
        prompt: the text.
        task: its label, if the source has one.
        digest: of the prompt, ignoring white space.
        passed_over: the roles of the turns before the user's that are not part of the prompt.
    """

    record: Record
    id: str
    prompt: str
    task: str | None
    digest: bytes
    passed_over: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The id, and the form that a hash had before it began with a letter: existing prepared pools may hold it."""
        return (self.id, self.id[1:]) if self.id == _hashed(self.digest) else (self.id,)


def _hashed(digest: bytes) -> str:
    """Return the id of a row without one; it begins with a letter, or a spreadsheet might read 123e45 as a number."""
    return f"h{digest[:8].hex()}"


def prompt_row(record: Record, columns: Columns) -> Row:
    """Read what a pool needs from a record; never a response.

    Raises:
        EmptyPromptError: the prompt is null or empty.
        ValueError: a column is missing or holds another type.
    """
    prompt, passed_over = asked_in(record, columns) if columns.messages else Asked(_plain(record, columns))
    if not prompt.strip():
        raise EmptyPromptError(f"{record.place}: the prompt is empty; fill it in or drop the line")
    digest = hashlib.sha256(" ".join(prompt.split()).encode()).digest()[:16]
    row_id = label(record, columns.id, "id") or _hashed(digest)
    return Row(record, row_id, prompt, label(record, columns.task, "task"), digest, passed_over)


def usable_row(record: Record, columns: Columns) -> Row | None:
    """Return the prompt of a record, or None if it has none."""
    try:
        return None if record.blank else prompt_row(record, columns)
    except EmptyPromptError:
        return None


def response_text(record: Record, columns: Columns) -> str | None:
    """Return the response that a record holds, or None if it holds none or only blanks."""
    if columns.messages:
        response = answer_text(record, columns)
    else:
        value = lookup(record.fields, columns.response)
        response = whole(value, record, columns.response) if isinstance(value, str) else None
    return response if response and response.strip() else None


def no_answer(record: Record, columns: Columns) -> str:
    """Say that a record has no response, and what was found instead."""
    if not columns.messages:
        value = lookup(record.fields, columns.response)
        return f"no text in column '{columns.response}': {found_instead(value, record)}"
    roles = [role_of(message) or "none" for message in turns_of(lookup(record.fields, columns.messages)) or ()]
    return (
        f"no text in the next turn of role 'assistant' after the user's {columns.turn}, in column "
        f"'{columns.messages}' (the roles are {listed(roles)})"
    )


def _plain(record: Record, columns: Columns) -> str:
    prompt = _text(record, columns.prompt, "prompt")
    context = lookup(record.fields, columns.context) if columns.context else None
    if context is None or context is ABSENT or context == "":
        return prompt
    further = _text(record, cast(str, columns.context), "context")
    return f"{prompt}\n\n{further}"


def _text(record: Record, column: str, what: str) -> str:
    value = lookup(record.fields, column)
    if not isinstance(value, str):
        first_of = {name: cast(list[object], cell)[0] for name, cell in record.fields.items() if _is_filled(cell)}
        lists = [n for n in record.columns if n in ("messages", "conversations") or role_of(first_of.get(n))]
        if column in lists:
            lists = [column]
        near = near_miss(column, record.columns) if value is ABSENT else None
        remedy = f"set pool.messages={lists[0]}" if lists else f"name a column of text with pool.{what}"
        if value is ABSENT and not lists and any(isinstance(first, dict) for first in first_of.values()):
            remedy += f"; if {' or '.join(map(repr, first_of))} lists the rows, write only that list into the file"
        remedy = f"did you mean {near!r}? Set {typed(f'pool.{what}', near)}" if near else remedy
        if value is None and not lists:
            raise EmptyPromptError(
                f"{record.place}: the prompt in column '{column}' is null; fill it in or drop the line"
            )
        raise ValueError(f"{record.place}: no text in column '{column}': {found_instead(value, record)}; {remedy}")
    return whole(value, record, column)


def _is_filled(cell: object) -> bool:
    return isinstance(cell, list) and bool(cast(list[object], cell))


def label(record: Record, column: str | None, what: str) -> str | None:
    """Return an id or a task, which may be absent."""
    value = lookup(record.fields, column) if column else None
    if value is None or value is ABSENT or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(
            f"{record.place}: the {what} in column '{column}' is {shown(value)}; give text or a whole number, or set "
            f"pool.{what}=null to read none"
        )
    return whole(str(value), record, cast(str, column))
