"""A conversation as one text, so that a prompt is always a text, and its turns where turns matter.

A prompt with a history is written as people would read it, with a sign before each turn that no keyboard can type:

    <sign>User: Why?

    <sign>Assistant: So.

    <sign>User: And then?

The sign is U+001E, which separates records in ASCII and counts as white space in Python, so texts that are compared by
their words are the same with and without it. A prompt without such turns is a single turn of the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

SIGN = "\x1e"
_GAP = "\n\n"
#: Role -> the text before its turns.
_HEADS = {"user": f"{SIGN}User: ", "assistant": f"{SIGN}Assistant: "}

#: A role, user or assistant, and its text.
Turn = tuple[str, str]


def joined(turns: Iterable[Turn]) -> list[Turn]:
    """Join consecutive turns of the same role, with a blank line between them."""
    found: list[Turn] = []
    for role, text in turns:
        if found and found[-1][0] == role:
            text = f"{found.pop()[1]}{_GAP}{text}"
        found.append((role, text))
    return found


def as_prompt(turns: Sequence[Turn]) -> str:
    """Write turns as a prompt; a single turn of the user stays as it is.

    Raises:
        ValueError: a turn contains the sign.
    """
    if len(turns) == 1:
        return turns[0][1]
    if any(SIGN in text for _, text in turns):
        raise ValueError("a turn holds the sign U+001E, by which turns are told apart; remove it")
    return _GAP.join(_HEADS[role] + text for role, text in turns)


def turns_of(prompt: str) -> list[Turn]:
    """Return the turns of a prompt: the inverse of `as_prompt`."""
    if not prompt.startswith(SIGN):
        return [("user", prompt)]
    pieces = prompt.split(SIGN)[1:]
    turns: list[Turn] = []
    for number, piece in enumerate(pieces, start=1):
        text = piece if number == len(pieces) else piece.removesuffix(_GAP)
        head = next((head for head in _HEADS.items() if (SIGN + text).startswith(head[1])), None)
        if head is None or (text == piece) != (number == len(pieces)):
            return [("user", prompt)]
        turns.append((head[0], text[len(head[1]) - 1 :]))
    return turns if len(turns) > 1 else [("user", prompt)]


def as_text(prompt: str) -> str:
    """Return a prompt as people and plain templates read it, without the signs before its turns."""
    return prompt if len(turns_of(prompt)) == 1 else prompt.replace(SIGN, "")


def with_texts(prompt: str, change: Callable[[str], str]) -> str:
    """Return a prompt with `change` applied to the text of each turn."""
    return as_prompt([(role, change(text)) for role, text in turns_of(prompt)])
