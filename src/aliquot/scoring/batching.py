"""Prompts as tokens, and which of them are read together.

Rows of similar length share a batch, so little padding is computed. A batch has as many rows as fit a budget of tokens,
so memory is bounded whatever the lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from aliquot.models.spec import Model

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

_PROMPTS_AT_ONCE = 8192


@dataclass(frozen=True)
class EncodedPrompts:
    """The tokens of all prompts, ragged: prompt i owns the next `lengths[i]` entries.

    Args:
        tokens: the tokens of all prompts, end to end.
        lengths: tokens of each prompt; at least 1.
        num_cut: how many prompts were too long and were cut.
        num_literal: how many prompts hold text that looks like a control token and was read as text.
    """

    tokens: Int32[np.ndarray, " t"]
    lengths: Int64[np.ndarray, " n"]
    num_cut: int
    num_literal: int = 0

    def padded(
        self, rows: Int64[np.ndarray, " b"], pad: int, side: str
    ) -> tuple[Int64[np.ndarray, "b l"], Int64[np.ndarray, "b l"]]:
        """Return tokens and mask (1 for a token) of some prompts, aligned by padding on the left or right."""
        lengths = self.lengths[rows]
        width = int(lengths.max())
        at = np.arange(width)
        mask = at >= width - lengths[:, None] if side == "left" else at < lengths[:, None]
        tokens = np.full(mask.shape, pad, dtype=np.int64)
        tokens[mask] = self.tokens[spans(self._starts[rows], lengths)]
        return tokens, mask.astype(np.int64)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " n"]:
        return np.cumsum(self.lengths) - self.lengths


def encode(model: Model, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_tokens: int) -> EncodedPrompts:
    """Tokenize a pool, a few thousand prompts at a time: lists of Python integers are large.

    A prompt longer than `max_tokens` is cut or refused, as `model.overlong` says.

    Raises:
        ValueError: a prompt has no tokens, so the model cannot read it; or it is too long and should be refused.
    """
    parts: list[Int32[np.ndarray, " t"]] = []
    lengths: list[int] = []
    num_cut, num_literal, encoding = 0, 0, model.encoding(tokenizer)
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        encoded, literal = encoding.read(prompts[start : start + _PROMPTS_AT_ONCE])
        num_literal += len(literal)
        num_cut += sum(len(ids) > max_tokens for ids in encoded)
        encoded = [encoding.shorten(ids, max_tokens) for ids in encoded]
        lengths += map(len, encoded)
        parts.append(np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded]))
    if 0 in lengths:
        raise ValueError(
            f"prompt {prompts[lengths.index(0)]!r} has no tokens in the template {model.template!r}; drop it, or put "
            "some text into model.template"
        )
    return EncodedPrompts(np.concatenate(parts), np.asarray(lengths, dtype=np.int64), num_cut, num_literal)


def plan_batches(
    lengths: Int64[np.ndarray, " n"], num_new: int, tokens_per_batch: int
) -> list[Int64[np.ndarray, " b"]]:
    """Split the rows into batches of similar length, of at most `tokens_per_batch` padded tokens.

    The longest rows come first, so that a batch that is too large for memory fails at once and not after an hour. The
    others come in a fixed random order: any part of the pass is like the whole, so the remaining time can be estimated.

    Args:
        lengths: tokens of each prompt.
        num_new: tokens that may be generated after each.
        tokens_per_batch: includes padding and generated tokens; a batch holds at least one row.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[Int64[np.ndarray, " b"]] = []
    start = 0
    while start < len(order):
        widest = int(lengths[order[start]]) + num_new
        size = max(1, tokens_per_batch // widest)
        batches.append(order[start : start + size])
        start += size
    shuffled = np.random.default_rng(0).permutation(range(1, len(batches)))
    return [*batches[:1], *(batches[i] for i in shuffled)]


def spans(starts: Int64[np.ndarray, " n"], lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " t"]:
    """Return the concatenation of `range(start, start + length)` over all rows.

    >>> spans(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Batch(NamedTuple):
    """Padded prompts that are read together; `rows` says which they are."""

    rows: Int64[Tensor, " b"]
    tokens: Int64[Tensor, "b l"]
    mask: Int64[Tensor, "b l"]
