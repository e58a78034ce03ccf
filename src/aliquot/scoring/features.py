"""From the hidden states of a prompt's tokens to one vector per prompt, or to a few narrow ones.

Pooling happens on the device, batch by batch. Torch is used through the tensors passed in and is not imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

if TYPE_CHECKING:
    from torch import Tensor

POSITIONS = ("last", "mean", "weighted")
_BLOCK = 8192  # rows held in memory at once


def pool_positions(hidden: Float[Tensor, "b l d"], mask: Int[Tensor, "b l"], position: str) -> Float32[Tensor, "b d"]:
    """Reduce the hidden states of padded prompts to one float32 vector each.

    `last` takes the last token, `mean` weights all tokens equally, and `weighted` gives token j of L the weight
    j / (1 + .. + L): in a causal model, later tokens have read more of the prompt.

    Args:
        hidden: states of all tokens; those of padding may hold anything, even NaN.
        mask: 1 for a token, 0 for padding, which is on the left or right of all tokens.
        position: one of `POSITIONS`.
    """
    if position == "last":
        last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
        return hidden.take_along_dim(last[:, None, None], dim=1).squeeze(1).float()
    weights = (mask.cumsum(dim=1) * mask if position == "weighted" else mask).float()
    weights = weights / weights.sum(dim=1, keepdim=True)
    states = hidden.float().masked_fill(mask[:, :, None] == 0, 0.0)  # 0 * NaN would be NaN
    return (weights[:, None] @ states).squeeze(1)


def gaussian_projection(d: int, r: int, seed: int) -> Float32[np.ndarray, "d r"]:
    """Draw entries from N(0, 1/r): in expectation, x P keeps the inner products of x (Johnson, Lindenstrauss 1984)."""
    return np.random.default_rng(seed).standard_normal((d, r), dtype=np.float32) / np.float32(np.sqrt(r))


def project(features: Float32[np.ndarray, "n d"], projection: Float32[np.ndarray, "d r"]) -> Float32[np.ndarray, "n r"]:
    """Project every row, a block of rows at a time; `features` may be memory-mapped."""
    projected = np.empty((len(features), projection.shape[1]), dtype=np.float32)
    for start in range(0, len(features), _BLOCK):
        projected[start : start + _BLOCK] = features[start : start + _BLOCK] @ projection
    return projected


def squared_norms(vectors: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    """Return the squared length of every row, a block of rows at a time; `vectors` may be memory-mapped."""
    blocks = (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))
    return np.concatenate([np.einsum("nd,nd->n", block, block, dtype=np.float64) for block in blocks])


def root_mean_square_norm(vectors: Float32[np.ndarray, "n d"]) -> float:
    """Return the root mean square of the lengths of the rows."""
    return float(np.sqrt(squared_norms(vectors).mean()))
