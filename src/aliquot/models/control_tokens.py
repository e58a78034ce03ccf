"""Text that looks like a control token, such as "</s>" in a question about markup, read as plain text.

A tokenizer finds its control tokens anywhere in a text and cannot know who wrote them. We therefore make a copy of the
tokenizer in which each control token has a secret name. Before the copy reads a text, the control tokens that the
template wrote get their secret names; those that a user wrote stay ordinary characters. Everything else is unchanged:
merges across the border of template and text, and the space that some tokenizers put before a text.

transformers' `split_special_tokens=True` cannot do this: it also splits the template's tokens, keeps tokens that are
not marked special, and stays switched on. The `sanitize_control_tokens` of its later versions works for chat templates
only, and cuts the text at every control token it finds.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerBase

#: Ways to read control tokens in prompts and responses.
SPECIAL_TOKENS = ("text", "parse")
_BRACKETED = re.compile(r"<.+>|\[.+\]|\{.+\}", re.DOTALL)
_HTML = re.compile(r"</?[a-z][a-z0-9]*>")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
#: Marks. One of them is put inside every control token that a user wrote, until the template's are renamed. Marks are
#: not letters, and no normalizer changes them.
_MARKS = tuple(map(chr, (*range(0x2801, 0x2900), *range(0xE000, 0xF900))))

Ids = list[int]


@dataclass(frozen=True)
class ControlTokens:
    """The control tokens of a tokenizer, and how to read a text in which some of them are plain text.

    Args:
        tokenizer: the original; it is not changed.
        template: what the template writes around a prompt and its response.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str

    @cached_property
    def tokens(self) -> Mapping[int, str]:
        """The text of every control token.

        These are the special tokens and, of the tokens added without that mark, those that are written in brackets or
        by the template. A single letter, a byte, blanks, and words that someone added remain ordinary text. A
        tokenizer that lists no added tokens, such as mistral-common's, makes no control token from text, so it has
        none here.
        """
        added: object = getattr(self.tokenizer, "added_tokens_decoder", None)
        if not isinstance(added, Mapping):
            return {}
        named = set(self.tokenizer.all_special_tokens)
        return {
            number: token.content
            for number, token in cast("Mapping[int, AddedToken]", added).items()
            if len(token.content.strip()) > 1 and not _BYTE.fullmatch(token.content)
            if token.special or token.content in named or self._is_markup(token.content)
        }

    def _is_markup(self, text: str) -> bool:
        """Tell whether an added token that is not marked special is still a control token."""
        if "".join(text.split()).isalnum():
            return False
        if text in self.template:
            return True
        # Gemma, for example, learned HTML tags as words: they are in the vocabulary itself.
        return bool(_BRACKETED.fullmatch(text)) and not (_HTML.fullmatch(text) and text in self._own_vocabulary)

    @cached_property
    def _own_vocabulary(self) -> Iterable[str]:
        backend = self._backend
        return backend.get_vocab(with_added_tokens=False) if backend else ()

    @property
    def _backend(self) -> Tokenizer | None:
        """The tokenizer of the tokenizers library; None if it is written in Python."""
        return getattr(self.tokenizer, "backend_tokenizer", None)

    def of(self, ids: Iterable[int]) -> Ids:
        """Return the control tokens among `ids`, except the unknown-word token, which any text may contain."""
        steering = self._steering
        return [number for number in ids if number in steering]

    @cached_property
    def _steering(self) -> frozenset[int]:
        return frozenset(self.tokens) - {cast("int | None", self.tokenizer.unk_token_id)}

    def count_unknown(self, text: str) -> int:
        """Count how often a text spells out the token for unknown words."""
        unknown = self.tokens.get(cast(int, self.tokenizer.unk_token_id))
        return text.count(unknown) if unknown else 0

    def spelled_in(self, text: str) -> bool:
        """Tell whether a text spells out a control token."""
        return self._spelling.search(text) is not None

    @cached_property
    def _spelling(self) -> re.Pattern[str]:
        """The pattern that finds control tokens; of two with the same beginning, it finds the longer."""
        longest_first = sorted(self.tokens.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def mark_for(self, *texts: str) -> str:
        """Return a mark that occurs neither in the texts nor in the template."""
        taken = set(self.template).union(*texts)
        return next(mark for mark in _MARKS if mark not in taken)

    def hide(self, text: str, mark: str) -> str:
        """Put a mark into each control token in a text and around the text, so that the tokenizer finds none there.

        Blanks at the ends of the text stay outside the marks, where templates may remove them.
        """
        core = text.strip()
        if not core:
            return text
        hidden = self._beginnings.sub(lambda found: found[0] + mark, core)
        for start, _, _ in reversed(self._found(hidden)):  # spelled differently, but equal after normalization
            hidden = hidden[: start + 1] + mark + hidden[start + 1 :]
        begin = text.index(core)
        return f"{text[:begin]}{mark}{hidden}{mark}{text[begin + len(core) :]}"

    @cached_property
    def _beginnings(self) -> re.Pattern[str]:
        """The pattern that finds the first letter of every control token, even where two overlap."""
        return re.compile(f"(?={self._spelling.pattern}).", re.DOTALL)

    def _found(self, text: str) -> list[tuple[int, int, int]]:
        """Return where the tokenizer finds control tokens in a text (start, end), and which token each is."""
        if self._backend is None:
            numbers = {token: number for number, token in self.tokens.items()}
            return [(*match.span(), numbers[match[0]]) for match in self._spelling.finditer(text)]
        encoded, tokens = self._backend.encode(text, add_special_tokens=False), self.tokens
        spans = [
            (start, end, number)
            for number, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)
            if number in tokens
        ]
        # The unknown-word token stands for many texts.
        return [span for span in spans if self._same(text[span[0] : span[1]], tokens[span[2]])]

    def _same(self, text: str, token: str) -> bool:
        """Tell whether a text spells out a token after normalization."""
        normalizer = self._backend.normalizer if self._backend else None
        if token in text or normalizer is None:
            return token in text
        return normalizer.normalize_str(text.strip()) == normalizer.normalize_str(token)

    def read(self, hidden: str, mark: str) -> Ids:
        """Tokenize a text, without adding special tokens around it.

        Args:
            hidden: the text, in which `hide` has marked what users wrote.
            mark: the mark that `hide` used; it is removed.

        Raises:
            ValueError: the tokenizer cannot be copied, or the copy does not find what the template wrote.
        """
        found = self._found(hidden)
        cuts = [0, *(cut for start, end, _ in found for cut in (start, end)), len(hidden)]
        pieces = [hidden[start:end].replace(mark, "") for start, end in pairwise(cuts)]
        return self._joined(pieces, [number for _, _, number in found])

    def _joined(self, pieces: Sequence[str], numbers: Sequence[int]) -> Ids:
        """Tokenize pieces, every second of which is a control token."""
        if self._backend is None:
            parts = [self._letters(piece) for piece in pieces]
            parts[1::2] = [[number] for number in numbers]
            return [number for part in parts for number in part]
        copy, names = self._copy
        written = list(pieces)
        for at, number in enumerate(numbers):
            piece, token = pieces[2 * at + 1], self.tokens[number]
            # Blanks that belong to the token are left in place; the copy removes them.
            written[2 * at + 1] = piece.replace(token, names[token]) if token in piece else names[token]
        text = "".join(written)
        encoded = copy.encode(text, add_special_tokens=False)
        spans = zip(encoded.ids, encoded.offsets, strict=True)
        kept = [n for n, (start, end) in spans if n in self.tokens and names[self.tokens[n]] in text[start:end]]
        if kept != list(numbers):
            raise self._stuck("reads the template's own control tokens differently if a text contains some")
        return encoded.ids

    def _letters(self, text: str) -> Ids:
        """Tokenize a text that holds no control tokens, with a tokenizer written in Python."""
        options: dict[str, Any] = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return cast(Ids, self.tokenizer(text, **options)["input_ids"]) if text else []

    @cached_property
    def _copy(self) -> tuple[Tokenizer, Mapping[str, str]]:
        """A copy of the tokenizer, and the names it has for the control tokens."""
        from tokenizers import Tokenizer

        secret = secrets.token_hex(8)  # so that nobody can write it into a prompt
        names = {token: f"x{secret}{number:08d}x" for number, token in self.tokens.items()}
        try:
            state = json.loads(cast("Tokenizer", self._backend).to_str())
        except Exception as error:  # tokenizers has no exception class of its own
            raise self._stuck("has parts written in Python") from error
        copy = Tokenizer.from_str(json.dumps(_renamed(state, names)))
        if any(copy.token_to_id(names[token]) != number for number, token in self.tokens.items()):
            raise self._stuck("numbers its control tokens in a way that a copy does not repeat")
        return copy, names

    def _stuck(self, why: str) -> ValueError:
        return ValueError(
            f"the tokenizer ({type(self.tokenizer).__name__}) {why}, so control tokens in prompts and responses cannot "
            "be read as text; set model.special_tokens=parse, or drop the rows that hold some"
        )


def note_literal(num: int, total: int, rows: str) -> str:
    """Say how many prompts or examples hold control tokens that are read as text."""
    return (
        f"{num:,} of {total:,} {rows} contain what looks like a control token; it was read as text: if it is meant as "
        "the token, set model.special_tokens=parse"
    )


def _renamed(state: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename tokens in the saved state of a tokenizer, so that only their new names lead to them."""
    model = state["model"]
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    if isinstance(model["vocab"], dict):
        vocabulary = cast(dict[str, int], model["vocab"])
        model["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        known = [(left, right) for left, right in model["merges"] if not {left, right, left + right} & names.keys()]
        model["merges"] = known
    return state | {"post_processor": None, "padding": None, "truncation": None}
