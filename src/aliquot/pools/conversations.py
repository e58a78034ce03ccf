"""From the messages of a record to its prompt and its response."""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

from aliquot.pools.columns import LAST, Columns, found_instead, lookup, shown, whole
from aliquot.pools.conversation import Turn, as_prompt, joined
from aliquot.pools.record import Record
from aliquot.pools.turns import content_of, other_parts, role_of, turns_of

#: Roles that ask -> the role of their turn in the prompt.
_ASKING = {"system": "user", "user": "user"}


class Asked(NamedTuple):
    """What a conversation asks.

    Args:
        prompt: the turns of the user to be answered, below what comes before them.
        passed_over: the roles of the turns before the user's that are not part of the prompt.
    """

    prompt: str
    passed_over: tuple[str, ...] = ()


def asked_in(record: Record, columns: Columns) -> Asked:
    """Read the turns up to the end of the user's answered turn; all turns if the user has none."""
    column = cast(str, columns.messages)
    turns: list[Turn] = []
    is_asked = False  # by the user, since the assistant's last turn
    roles: list[str] = []
    passed: list[str] = []
    has_asked = False
    question = _parted(record, columns)[0]
    for number, message in enumerate(question, start=1):
        role, text = role_of(message), content_of(message)
        if role is None or (role in _ASKING and text is None):
            raise _no_turn(record, columns, number, message)
        if not _is_read(role, text, has_asked):
            passed.append(role)
        elif text and text.strip():
            has_asked = has_asked or role == "user"
            is_asked = role == "user" or (is_asked and role != "assistant")
            turns.append((_ASKING.get(role, role), whole(text, record, column)))
        roles.append(role)
    if question and "user" not in roles:
        found = f"the roles are {', '.join(roles) or 'none'}"
        raise ValueError(f"{record.place}: no turn of role 'user' ({found}); add one or drop the line")
    try:
        return Asked(as_prompt(joined(turns)) if is_asked else "", tuple(passed))
    except ValueError as error:
        raise ValueError(f"{record.place}: {error}") from error


def _parted(record: Record, columns: Columns) -> tuple[list[object], list[object]]:
    """Return the turns up to the end of the user's answered turn, and those after it; without one, all and none."""
    messages = _messages(record, cast(str, columns.messages))
    users = [i for i, message in enumerate(messages) if role_of(message) == "user"]
    end = len(messages)
    if users and columns.turn == LAST:
        end = users[-1] + 1
    elif users:
        end = next(i for i in itertools.count(users[0]) if i not in users)
    return messages[:end], messages[end:]


def _is_read(role: str, text: str | None, is_asked: bool) -> bool:
    """Tell whether a turn is part of a prompt: the assistant's turns are, after the user's first turn."""
    return role in _ASKING or (role == "assistant" and is_asked and bool(text and text.strip()))


def answer_text(record: Record, columns: Columns) -> str | None:
    """Return the text of the assistant's first turn after the user's; a tool call has none."""
    later = _parted(record, columns)[1]
    response = next((content_of(message) for message in later if role_of(message) == "assistant"), None)
    return whole(response, record, cast(str, columns.messages)) if response is not None else None


def _messages(record: Record, column: str) -> list[object]:
    value = lookup(record.fields, column)
    messages = [] if value is None else turns_of(value)
    if messages is None:
        raise ValueError(
            f"{record.place}: no list of messages in column '{column}': {found_instead(value, record)}; "
            "name the column with pool.messages, or use pool.prompt for plain text"
        )
    return messages


def _no_turn(record: Record, columns: Columns, number: int, message: object) -> ValueError:
    kinds = other_parts(message)
    found = f"holds parts of type {', '.join(kinds)}" if kinds else f"is {shown(message)}"
    return ValueError(
        f"{record.place}: message {number} in column '{columns.messages}' {found}; "
        'write {"role": "user", "content": "..."}, with text as content, or drop the line'
    )
