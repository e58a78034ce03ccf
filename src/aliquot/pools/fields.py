"""From a record to a prompt, its id and its task, or to its response: which columns, and what may be in them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from aliquot.conversation import Turn, as_prompt, joined
from aliquot.pools.names import listed, near_miss, setting
from aliquot.pools.record import Record
from aliquot.pools.turns import content_of, role_of, turns_of

#: Which of the user's turns is answered.
FIRST, LAST = "first", "last"
#: Roles that ask -> whose turn of the prompt that is.
_ASKING = {"system": "user", "user": "user"}
_ABSENT = object()


@dataclass(frozen=True)
class Columns:
    """Names the columns; `meta.task` reaches into nested objects.

    Args:
        prompt: the text of the prompt.
        context: further text, set below the prompt where there is some; None where no column holds any.
        id: the id; rows without one are identified by a hash of their prompt, as all are where this is None.
        task: the task label, or None.
        response: what only an annotator reads.
        messages: a list of {role, content} that takes the place of `prompt` and `response`, or None.
        turn: of the user that is answered: his first, or his last, with what was said before it in the prompt.
    """

    prompt: str
    context: str | None
    id: str | None
    task: str | None
    response: str
    messages: str | None
    turn: str = field(default=FIRST, metadata={"absent": FIRST})

    def named(self, what: str) -> str | None:
        """Return the name of a column that a pool need not have, or None where it is not read."""
        if what == "context" and self.messages:
            return None
        return cast("str | None", getattr(self, what))

    def for_prompts(self) -> list[str]:
        """Return the columns that prompts are made of."""
        text = [self.messages] if self.messages else [self.prompt, self.context]
        return [name for name in (*text, self.id, self.task) if name]

    def for_responses(self) -> list[str]:
        """Return those, and the one of the responses."""
        return self.for_prompts() if self.messages else [*self.for_prompts(), self.response]


def check_turn(turn: str, messages: str | None, group: str) -> None:
    """Raise ValueError where a turn is named that is not known, or that nothing has; `group` is that of the config."""
    if turn not in (FIRST, LAST):
        raise ValueError(f"{group}.turn={turn} is neither {FIRST} nor {LAST}; give one of them")
    if turn == LAST and not messages:
        raise ValueError(
            f"{group}.turn={LAST} asks for conversations, and {group}.messages={messages}; name their column with "
            f"{group}.messages, or leave {group}.turn at {FIRST}"
        )


class EmptyPromptError(ValueError):
    """A row has no prompt, though the column is there."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt on its way into a pool.

    Args:
        record: where it came from.
        id: the source's own, or the hash of the prompt.
        prompt: the text.
        task: its label, where the source has one.
        digest: of the prompt, whatever its white space.
    """

    record: Record
    id: str
    prompt: str
    task: str | None
    digest: bytes

    @property
    def names(self) -> tuple[str, ...]:
        """The id, and the one that a hash had before it began with a letter: prepared pools may hold it."""
        return (self.id, self.id[1:]) if self.id == _hashed(self.digest) else (self.id,)


def _hashed(digest: bytes) -> str:
    """Return the id of a row without one; a letter begins it, lest a spreadsheet reads 123e45 as a number."""
    return f"h{digest[:8].hex()}"


def prompt_row(record: Record, columns: Columns) -> Row:
    """Read what a pool needs of a record; no response.

    Raises:
        EmptyPromptError: the prompt is null or empty.
        ValueError: a column is missing or holds something else.
    """
    prompt = _prompt(record, columns)
    if not prompt.strip():
        raise EmptyPromptError(f"{record.place}: the prompt is empty; fill it in or drop the line")
    digest = hashlib.sha256(" ".join(prompt.split()).encode()).digest()[:16]
    row_id = label(record, columns.id, "id") or _hashed(digest)
    return Row(record, row_id, prompt, label(record, columns.task, "task"), digest)


def usable_row(record: Record, columns: Columns) -> Row | None:
    """Return the prompt of a record, or None where it has none."""
    try:
        return None if record.blank else prompt_row(record, columns)
    except EmptyPromptError:
        return None


def response_text(record: Record, columns: Columns) -> str | None:
    """Return the response that a record holds, or None where it holds none or only blanks."""
    if columns.messages:
        response = _answer(record, columns)
    else:
        value = _lookup(record.fields, columns.response)
        response = _whole(value, record, columns.response) if isinstance(value, str) else None
    return response if response and response.strip() else None


def no_answer(columns: Columns) -> str:
    """Say that a record has no response."""
    if not columns.messages:
        return f"no text in column '{columns.response}'"
    behind = " behind the user's last" if columns.turn == LAST else ""
    return f"no turn of role 'assistant' with text{behind} in column '{columns.messages}'"


def _prompt(record: Record, columns: Columns) -> str:
    if columns.messages:
        return _asked(record, columns)
    prompt = _text(record, columns.prompt)
    context = _lookup(record.fields, columns.context) if columns.context else None
    if context is None or context is _ABSENT or context == "":
        return prompt
    return f"{prompt}\n\n{_text(record, cast(str, columns.context))}"


def _asked(record: Record, columns: Columns) -> str:
    """Return the turns of the user that are to be answered, below what comes before them."""
    column = cast(str, columns.messages)
    turns: list[Turn] = []
    is_asked = False  # by the user, since the assistant spoke last
    roles: list[str] = []
    for number, message in enumerate(_question(record, columns), start=1):
        role, text = role_of(message), content_of(message)
        if role is None or (role in _ASKING and text is None):
            raise _no_turn(record, columns, number, message)
        if text and text.strip() and _is_read(role, text, "user" in roles):
            is_asked = role == "user" or (is_asked and role != "assistant")
            turns.append((_ASKING.get(role, role), _whole(text, record, column)))
        roles.append(role)
    if "user" not in roles:
        found = f"the roles are {', '.join(roles) or 'none'}"
        raise ValueError(f"{record.place}: no turn of role 'user' ({found}); add one or drop the line")
    try:
        return as_prompt(joined(turns)) if is_asked else ""
    except ValueError as error:
        raise ValueError(f"{record.place}: {error}") from error


def passed_over(record: Record, columns: Columns) -> list[str]:
    """Return the roles of the turns before the user's that are no part of the prompt."""
    if not columns.messages:
        return []
    roles: list[str] = []
    passed: list[str] = []
    for message in _question(record, columns):
        role = role_of(message) or ""
        passed += [] if _is_read(role, content_of(message), "user" in roles) else [role]
        roles.append(role)
    return passed


def _question(record: Record, columns: Columns) -> list[object]:
    """Return the turns up to the end of the user's: his first, or his last; all where he has none."""
    return _parted(record, columns)[0]


def _parted(record: Record, columns: Columns) -> tuple[list[object], list[object]]:
    """Return the turns up to the end of the user's that are asked, and those behind; all and none without any."""
    messages = _messages(record, cast(str, columns.messages))
    users = [i for i, message in enumerate(messages) if role_of(message) == "user"]
    end = len(messages)
    if users and columns.turn == LAST:
        end = users[-1] + 1
    elif users:
        end = next(i for i in itertools.count(users[0]) if i not in users)
    return messages[:end], messages[end:]


def _is_read(role: str, text: str | None, is_asked: bool) -> bool:
    """Tell whether a turn is part of a prompt: what the assistant says is, behind the user's first turn."""
    return role in _ASKING or (role == "assistant" and is_asked and bool(text and text.strip()))


def _answer(record: Record, columns: Columns) -> str | None:
    """Return the text of the assistant's first turn behind the user's; a call of a tool has none."""
    behind = _parted(record, columns)[1]
    response = next((content_of(message) for message in behind if role_of(message) == "assistant"), None)
    return _whole(response, record, cast(str, columns.messages)) if response is not None else None


def _messages(record: Record, column: str) -> list[object]:
    value = _lookup(record.fields, column)
    messages = turns_of(value)
    if messages is None:
        raise ValueError(
            f"{record.place}: no list of messages in column '{column}': {_found(value, record)}; "
            "name the column with pool.messages, or use pool.prompt for plain text"
        )
    return messages


def _no_turn(record: Record, columns: Columns, number: int, message: object) -> ValueError:
    return ValueError(
        f"{record.place}: message {number} in column '{columns.messages}' is {_shown(message)}; "
        'write {"role": "user", "content": "..."}, with text as content'
    )


def _text(record: Record, column: str) -> str:
    value = _lookup(record.fields, column)
    if not isinstance(value, str):
        lists = [name for name in record.columns if name in ("messages", "conversations")]
        if isinstance(value, list) and value and role_of(cast(list[object], value)[0]):
            lists = [column]
        near = near_miss(column, record.columns) if value is _ABSENT else None
        remedy = f"set pool.messages={lists[0]}" if lists else "name the column of the prompts with pool.prompt"
        remedy = f"did you mean {near!r}? Set {setting('prompt', near)}" if near else remedy
        if value is None and not lists:
            raise EmptyPromptError(
                f"{record.place}: the prompt in column '{column}' is null; fill it in or drop the line"
            )
        raise ValueError(f"{record.place}: no text in column '{column}': {_found(value, record)}; {remedy}")
    return _whole(value, record, column)


def label(record: Record, column: str | None, what: str) -> str | None:
    """Return an id or a task, which may be absent."""
    value = _lookup(record.fields, column) if column else None
    if value is None or value is _ABSENT or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(
            f"{record.place}: the {what} in column '{column}' is {_shown(value)}; give text or a whole number, or set "
            f"pool.{what}=null to read none"
        )
    return _whole(str(value), record, cast(str, column))


def _whole(text: str, record: Record, column: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{record.place}: column '{column}' holds half a character (a lone surrogate); write it whole"
            ) from error
    return text


def has_column(record: Record, column: str) -> bool:
    """Return whether a record has a column, though there may be nothing in it; nested ones by their path."""
    return column in record.columns or _lookup(record.fields, column) is not _ABSENT


def _lookup(fields: Mapping[str, object], column: str) -> object:
    if column in fields:
        return fields[column]
    value: object = fields
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _found(value: object, record: Record) -> str:
    return f"the columns are {listed(record.columns)}" if value is _ABSENT else f"it is {_shown(value)}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
