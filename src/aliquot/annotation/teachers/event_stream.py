"""Assembles an answer that a server sends as a stream of events although no stream was requested."""

from __future__ import annotations

import json
from typing import Any

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")


def body_of(text: str) -> Any:
    """Return the body of an answer: plain JSON, or the chunks of a stream of server-sent events merged into one.

    Raises:
        ValueError: it is neither.
        LookupError, TypeError, AttributeError: a chunk is malformed.
    """
    text = text.removeprefix("\ufeff")
    if not text.lstrip().startswith(("data:", "event:", ":", "id:")):
        return json.loads(text)
    sent = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    chunks: list[dict[str, Any]] = [json.loads(data) for data in sent if data and data != "[DONE]"]
    body: dict[str, Any] = {}
    message: dict[str, str] = {}
    choice: dict[str, Any] = {"message": message}
    for chunk in chunks:
        body |= {name: value for name, value in chunk.items() if value is not None and name != "choices"}
        for part in (part for part in chunk.get("choices") or () if part.get("index", 0) == 0):
            said = part.get("delta") or part.get("message") or {}
            for name in _TEXTS:
                if isinstance(said.get(name), str):
                    message[name] = message.get(name, "") + said[name]
            if part.get("finish_reason"):
                choice["finish_reason"] = part["finish_reason"]
    return body | ({"choices": [choice]} if message or "finish_reason" in choice else {})
