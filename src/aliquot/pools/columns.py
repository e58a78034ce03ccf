"""Which columns of a record are read, for what, and what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from aliquot.pools.column_names import listed
from aliquot.pools.record import Record

#: Which of the user's turns is answered.
FIRST, LAST = "first", "last"
#: The value found if the column does not exist.
ABSENT = object()


@dataclass(frozen=True)
class Columns:
    """Names the columns; `meta.task` reaches into nested objects.

    Args:
        prompt: the text of the prompt.
        context: further text, put below the prompt if there is any; None if no column holds any.
        id: the id; a row without one is identified by a hash of its prompt, as all rows are if this is None.
        task: the task label, or None.
        response: read only by an annotator.
        messages: a list of {role, content} that replaces `prompt` and `response`, or None.
        turn: which of the user's turns is answered: the first, or the last, with what was said before it in the prompt.
    """

    prompt: str
    context: str | None
    id: str | None
    task: str | None
    response: str
    messages: str | None
    turn: str = field(default=FIRST, metadata={"absent": FIRST})

    def named(self, what: str) -> str | None:
        """Return the name of a column that a pool need not have, or None if it is not read."""
        if what == "context" and self.messages:
            return None
        return cast("str | None", getattr(self, what))

    def for_prompts(self) -> list[str]:
        """Return the columns that make up prompts."""
        text = [self.messages] if self.messages else [self.prompt, self.context]
        return [name for name in (*text, self.id, self.task) if name]

    def for_responses(self) -> list[str]:
        """Return the columns of prompts, and the column of the responses."""
        return self.for_prompts() if self.messages else [*self.for_prompts(), self.response]


def check_conversations(
    turn: str, messages: str | None, replaced: Mapping[str, tuple[str | None, str | None]], group: str
) -> None:
    """Raise ValueError if a turn is unknown or needs conversations that are not read, or they replace a named column.

    Args:
        turn: the setting.
        messages: the column of conversations, or None.
        replaced: name -> value and default of the settings that are not read if there are conversations.
        group: the config group, for the message.
    """
    if turn not in (FIRST, LAST):
        raise ValueError(f"{group}.turn={turn} is neither {FIRST} nor {LAST}; give one of them")
    if turn == LAST and not messages:
        raise ValueError(
            f"{group}.turn={LAST} asks for conversations, and {group}.messages={messages}; name their column with "
            f"{group}.messages, or leave {group}.turn at {FIRST}"
        )
    for name, (value, default) in replaced.items() if messages else ():
        if value not in (default, None):
            raise ValueError(
                f"{group}.{name}={value} is not read where {group}.messages={messages} holds the conversation; set "
                f"{group}.messages=null, or leave {group}.{name} at {default or 'null'}"
            )


def has_column(record: Record, column: str) -> bool:
    """Return whether a record has a column, even if it is empty; nested columns are named by their path."""
    return column in record.columns or lookup(record.fields, column) is not ABSENT


def whole(text: str, record: Record, column: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{record.place}: column '{column}' holds half a character (a lone surrogate); write it whole"
            ) from error
    return text


def lookup(fields: Mapping[str, object], column: str) -> object:
    if column in fields:
        return fields[column]
    value: object = fields
    for name in column.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return ABSENT
        value = value[name]
    return value


def found_instead(value: object, record: Record) -> str:
    return f"the columns are {listed(record.columns)}" if value is ABSENT else f"it is {shown(value)}"


def shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
