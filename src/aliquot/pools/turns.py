"""Turns of a conversation in the forms they are found in: {role, content}, {from, value}, and JSON text of these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

#: Roles by other names.
_ROLES = {"developer": "system", "human": "user", "gpt": "assistant"}


def turns_of(value: object) -> list[object] | None:
    """Return the messages of a column, which may be their JSON text; None where it holds no list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return cast(list[object], value) if isinstance(value, list) else None


def role_of(message: object) -> str | None:
    """Return the role of a message: system, user, assistant or another; None where it has none."""
    role = _either(message, "role", "from")
    return _ROLES.get(role, role) if isinstance(role, str) else None


def content_of(message: object) -> str | None:
    """Return the text of a message, parts of text joined by line breaks; None where it has none, or parts of else."""
    content = _either(message, "content", "value")
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    parts = [part if isinstance(part, str) else _either(part, "text", "") for part in cast(list[object], content)]
    return "\n".join(cast(list[str], parts)) if parts and all(isinstance(part, str) for part in parts) else None


def _either(message: object, name: str, other: str) -> object:
    fields = cast(Mapping[str, object], message) if isinstance(message, Mapping) else {}
    return fields.get(name) if fields.get(name) is not None else fields.get(other)
