"""Ragged pools for `information`: the matrices X_i of all prompts, and log det(I + Y Y^T) of many at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from aliquot.scoring.features import squared_norms


@dataclass(frozen=True)
class Blocks:
    """The matrices X_i = scale[i] * vectors[starts[i] : starts[i] + lengths[i]].

    Args:
        vectors: may be memory-mapped; read only where needed.
        starts: first row of each block.
        lengths: rows of each block; at least 1.
        scale: factor of each block.
    """

    vectors: Float32[np.ndarray, "t r"]
    starts: Int64[np.ndarray, " n"]
    lengths: Int64[np.ndarray, " n"]
    scale: Float64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.lengths)

    def longest(self) -> float:
        """Return the length of the longest row in any X."""
        per_row = np.append(squared_norms(self.vectors), 0)  # so that the last block has an end after it
        spans = np.column_stack([self.starts, self.starts + self.lengths]).ravel()  # gaps between blocks are left out
        return float(np.sqrt((np.maximum.reduceat(per_row, spans)[::2] * self.scale**2).max()))

    def gather(self, rows: Int64[np.ndarray, " b"], width: int, dtype: torch.dtype, device: str) -> Tensor:
        """Return the X of some blocks, (b, width, r), padded with zeros after shorter ones."""
        offsets = np.arange(width)
        inside = offsets < self.lengths[rows, None]
        taken = self.vectors[np.where(inside, self.starts[rows, None] + offsets, 0)]
        scale = torch.from_numpy(inside * self.scale[rows, None]).to(device, dtype)
        return torch.from_numpy(taken).to(device, dtype).mul_(scale[:, :, None])

    def twins(self, rows: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " n"]:
        """Return, for each of `rows`, the next of them with an identical block; -1 if there is none."""
        twin, last = np.full(len(self), -1), dict[bytes, int]()
        for row in rows.tolist():
            end = self.starts[row] + self.lengths[row]
            content = hashlib.blake2b(self.vectors[self.starts[row] : end].tobytes(), digest_size=16).digest()
            if content in last:
                twin[last[content]] = row
            last[content] = row
        return twin


def padded(lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Round lengths up to powers of two and the numbers halfway between, so that few block shapes share products."""
    power = 1 << np.ceil(np.log2(lengths)).astype(np.int64)
    return np.where((power >= 4) & (lengths <= power // 4 * 3), power // 4 * 3, power)


def log_det(y: Tensor) -> Tensor:
    """Return log det(I + Y Y^T) of every Y, (b, T, r); never negative, and NaN if float32 is too narrow."""
    if y.shape[1] == 1:
        return torch.linalg.vecdot(y, y)[:, 0].log1p()
    information = y @ y.mT
    information.diagonal(dim1=1, dim2=2).add_(1)
    factor, failed = torch.linalg.cholesky_ex(information)
    gains = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(dim=1).clamp(min=0)
    if failed.any():  # next to very long vectors, I is rounded away
        narrow = y.dtype == torch.float32
        gains[failed > 0] = torch.nan if narrow else torch.linalg.svdvals(y[failed > 0]).square().log1p().sum(dim=1)
    return gains


def rounding(x: Tensor, y: Tensor, factor: float) -> Tensor:
    """Bound the rounding error of log det(I + Y Y^T), Y = X C, with `factor` the Frobenius norm of C.

    |log det(I + M + E) - log det(I + M)| is at most the nuclear norm of E. The error of every product of length r is r
    times the unit roundoff, relative to the lengths of its vectors (Higham 2002).
    """
    _, tokens, r = y.shape
    unit = torch.finfo(y.dtype).eps / 2
    x_norm, y_norm = (torch.linalg.vector_norm(values, dim=(1, 2)) for values in (x, y))
    of_y = 2 * (r + tokens + 8) * factor * x_norm * y_norm
    of_gram = (r + 1) * tokens**0.5 * y_norm.square()
    of_cholesky = 2 * (tokens + 1) * (tokens + y_norm.square())
    return unit * (of_y + of_gram + of_cholesky)
