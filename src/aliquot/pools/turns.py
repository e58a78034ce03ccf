"""Turns of a conversation in the forms found in data: {role, content}, {from, value}, and JSON text of these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

#: Other names of roles -> role.
_ROLES = {
    "developer": "system",
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "model", "chatgpt", "bing", "bard"), "assistant"),
}


def turns_of(value: object) -> list[object] | None:
    """Return the messages of a column, which may be stored as JSON text; None if it does not hold a list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, Mapping):  # one list per field instead of a list of messages; `datasets` may store it so
        fields = cast(Mapping[str, object], value)
        if not all(isinstance(column, list) for column in fields.values()):
            return None
        columns = cast(Mapping[str, list[object]], fields)
        return [dict(zip(columns, cells, strict=False)) for cells in zip(*columns.values(), strict=False)]
    return cast(list[object], value) if isinstance(value, list) else None


def role_of(message: object) -> str | None:
    """Return the role of a message: system, user, assistant or another; None if it has none."""
    role = _either(message, "role", "from")
    return _ROLES.get(role.strip().lower(), role.strip().lower()) if isinstance(role, str) else None


def content_of(message: object) -> str | None:
    """Return the text of a message, with text parts joined by line breaks; None if it has none, or has other parts."""
    content = _either(message, "content", "value")
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    parts = [part if isinstance(part, str) else _either(part, "text", "") for part in cast(list[object], content)]
    return "\n".join(cast(list[str], parts)) if parts and all(isinstance(part, str) for part in parts) else None


def other_parts(message: object) -> list[str]:
    """Return the types of the parts of a message that are not text, such as image_url."""
    content = _either(message, "content", "value")
    parts = cast(list[object], content) if isinstance(content, list) else []
    others = (part for part in parts if isinstance(part, Mapping) and not isinstance(_either(part, "text", ""), str))
    return list(dict.fromkeys(str(_either(part, "type", "")) for part in others))


def _either(message: object, name: str, other: str) -> object:
    fields = cast(Mapping[str, object], message) if isinstance(message, Mapping) else {}
    return fields.get(name) if fields.get(name) is not None else fields.get(other)
