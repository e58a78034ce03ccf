"""Separates the reasoning that a model writes before its response from the response, by its tags."""

from __future__ import annotations

import re

_NAMES = r"(?:seed:)?think(?:ing)?"
_OPEN, _CLOSE = rf"(?i:<{_NAMES}>)|\[THINK\]|◁think▷", rf"(?i:</{_NAMES}>)|\[/THINK\]|◁/think▷"
#: A tag in quotes is only mentioned.
_TAG = re.compile(rf"([`'\"])(?:{_OPEN}|{_CLOSE})\1|(?P<open>{_OPEN})|(?P<close>{_CLOSE})")

#: Where the channels of a text begin, and its final one; without their special tokens, only the words are left.
_CHANNELS = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>|analysis(?=\S.*assistantfinal)", re.DOTALL)
_FINAL = re.compile(r"<\|channel\|>final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>|assistantfinal")
_END = re.compile(r"<\|(?:end|return|start)\|>")


def with_reasoning(reasoning: str, response: str) -> str:
    """Put reasoning that a server sends separately before its response, in tags."""
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{response}" if reasoning.strip() else response


def without_reasoning(text: str) -> str:
    """Return a response without reasoning; a text that has none is returned as it is.

    A closing tag without an opening one ends reasoning that the prompt's template opened. An opening tag at the start
    of a line that is never closed begins reasoning that was cut off. In a text with channels (OpenAI's harmony format),
    the last final one is the response.
    """
    text = _final_channel(text)
    kept: list[str] = []
    start, opened = 0, -1
    found = False
    for tag in _TAG.finditer(text):
        if tag["open"] and opened < 0:
            kept.append(text[start : tag.start()])
            opened = tag.start()
        elif tag["close"]:
            if opened < 0:
                kept.clear()
            start, opened, found = tag.end(), -1, True
    if opened < 0:
        kept.append(text[start:])
    elif text[:opened].rpartition("\n")[2].strip():
        kept.append(text[opened:])
    else:
        found = True
    return "".join(kept).strip() if found else text


def _final_channel(text: str) -> str:
    """Return the response in a text with channels, empty if it was cut off before; return any other text as it is."""
    if not _CHANNELS.match(text):
        return text
    final = list(_FINAL.finditer(text))
    return _END.split(text[final[-1].end() :])[0].strip() if final else ""
