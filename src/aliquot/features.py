"""From the hidden states of a prompt's tokens to one vector per prompt.

Pooling happens on the device, batch by batch; normalisation afterwards on the host, because centring needs the mean of
the whole pool. Torch is used through the tensors passed in and is not imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Int

if TYPE_CHECKING:
    from torch import Tensor

POSITIONS = ("last", "mean", "weighted")
NORMALIZATIONS = ("raw", "centred", "unit")


def pool_positions(hidden: Float[Tensor, "b l d"], mask: Int[Tensor, "b l"], position: str) -> Float32[Tensor, "b d"]:
    """Reduce the hidden states of left-padded prompts to one float32 vector each.

    `last` takes the last token, `mean` all tokens alike, and `weighted` token j of L with weight j / (1 + .. + L): a
    causal model's later tokens have read more of the prompt.

    Args:
        hidden: states of all tokens; those of padding may hold anything, even NaN.
        mask: 1 where a token is, 0 where padding is. Every row ends in 1.
        position: one of `POSITIONS`.
    """
    if position == "last":
        return hidden[:, -1].float()
    weights = (mask.cumsum(dim=1) * mask if position == "weighted" else mask).float()
    weights = weights / weights.sum(dim=1, keepdim=True)
    states = hidden.float().masked_fill(mask[:, :, None] == 0, 0.0)  # 0 * NaN would be NaN
    return (weights[:, None] @ states).squeeze(1)


def normalize_in_place(features: Float32[np.ndarray, "n d"], how: str, block: int = 8192) -> None:
    """Centre on the mean of the pool, or scale to unit Euclidean norm, a block of rows at a time.

    A zero vector has no direction and stays zero under `unit`.

    Args:
        features: one row a prompt; may be memory-mapped.
        how: one of `NORMALIZATIONS`.
        block: rows held in memory at once.
    """
    blocks = [slice(start, start + block) for start in range(0, len(features), block)]
    if how == "centred":
        mean = sum(features[rows].sum(axis=0, dtype=np.float64) for rows in blocks) / len(features)
        for rows in blocks:
            features[rows] -= mean
    elif how == "unit":
        for rows in blocks:
            norms = np.linalg.norm(features[rows], axis=1, keepdims=True)
            features[rows] /= np.where(norms == 0, 1, norms)
