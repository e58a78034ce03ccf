"""The dense passes of `facility_location` by torch, on any device, which finds the pairs; the CPU counts them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from aliquot.selection.greedy import passes_loops as tiles
from aliquot.selection.greedy.cover import Cover, levels
from aliquot.selection.greedy.fixed_point import comparison_margin
from aliquot.selection.greedy.passes import STRIP, UNIT, WIDTH, Pieces, empty_lists
from aliquot.selection.greedy.workers import full_precision
from aliquot.selection.kernels import Embedding

_BYTES_PER_PAIR = 32  # for a tile and the arrays derived from it
_HOST_MEMORY = 1 << 28  # for tiles on a device that does not report its memory


class DevicePasses:
    """Passes on a torch device. The vectors stay there if they take at most half of its free memory."""

    def __init__(self, embedding: Embedding, device: str) -> None:
        self._device, self._exponential = torch.device(device), embedding.exponential
        free = torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else _HOST_MEMORY
        vectors = torch.from_numpy(np.ascontiguousarray(embedding.vectors))
        self._z = vectors.to(self._device) if 2 * embedding.vectors.nbytes <= free else vectors
        self._bias = self._put(embedding.bias)
        self._slack = self._put(_slack(embedding))
        self._width = max(free // 4 // (STRIP * _BYTES_PER_PAIR) // WIDTH, 1) * WIDTH

    def sums(self, first: int, cover: Cover, weight: np.ndarray) -> Iterator[np.ndarray]:
        n = len(self._z)
        level, weights = self._put(levels(cover)), self._put(weight)
        for start in range(first, n, STRIP):
            own = slice(start, start + STRIP)
            total = torch.zeros((2, n - start), dtype=torch.float64, device=self._device)
            for a, s in self._products(self._z[own], start):
                other = slice(a, a + s.shape[1])
                s += self._bias[own, None] + self._bias[other]
                w = s.clamp_(max=0).exp2_() if self._exponential else s.clamp_(0, 1)
                both = min(max(own.stop - a, 0), w.shape[1])  # a strip times itself contains both triangles
                for sums, below, right in ((total[0], 0, 0), (total[1], level[own, None], level[other])):
                    sums[: len(w)] += ((w - right).clamp_(min=0) @ weights[other]).double()
                    added = weights[own] @ (w[:, both:] - below).clamp_(min=0)
                    sums[a - start + both : a - start + w.shape[1]] += added.double()
            yield total.cpu().numpy()

    def scan(self, batch: np.ndarray, cover: Cover, weight: np.ndarray | None, scratch: np.ndarray) -> Pieces:
        found = empty_lists(len(batch), len(self._z), scratch)
        limit, end = self._put(cover.limit), 0
        for unit in range(0, len(batch), UNIT):
            some = slice(unit, unit + UNIT)
            bias = self._bias[self._put(batch[some])]
            for a, s in self._products(self._unit(batch[some]), 0):
                pairs = (s[: len(bias)] + bias[:, None] > limit[a : a + s.shape[1]]).nonzero(as_tuple=True)
                value = s[pairs] + (bias[pairs[0]] + self._bias[a + pairs[1]])
                lengths = found.lengths[some, a // WIDTH]
                num = tiles.count_pairs(
                    pairs[0].cpu().numpy(), (a + pairs[1]).int().cpu().numpy(), value.cpu().numpy(), batch[some], cover,
                    weight, found.gains[some], lengths, found.rows[end:], found.quanta[end:],
                )  # fmt: skip
                found.starts[some, a // WIDTH] = end + np.cumsum(lengths) - lengths
                end += num
        return found

    def cover_by(self, chosen: np.ndarray, cover: Cover) -> None:
        for unit in range(0, len(chosen), UNIT):
            rows = chosen[unit : unit + UNIT]
            bias = self._bias[self._put(rows)]
            limit = self._put(cover.limit)
            for a, s in self._products(self._unit(rows), 0):
                t = s[: len(rows)] + bias[:, None]
                # Among exponents that are equal up to rounding, any may have the most quanta.
                columns = slice(a, a + t.shape[1])
                highest = torch.maximum(limit[columns], t.amax(dim=0) - self._slack[columns])
                pairs = (t >= highest).nonzero(as_tuple=True)
                value = s[pairs] + (bias[pairs[0]] + self._bias[a + pairs[1]])
                of_pairs = rows[pairs[0].cpu().numpy()], (a + pairs[1]).cpu().numpy()
                tiles.raise_pairs(*of_pairs, value.cpu().numpy(), cover)

    def _put(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _unit(self, rows: np.ndarray) -> torch.Tensor:
        """Always return `UNIT` rows, see `passes`."""
        return self._z[torch.from_numpy(np.resize(rows, UNIT)).to(self._z.device)]

    def _products(self, left: torch.Tensor, start: int) -> Iterator[tuple[int, torch.Tensor]]:
        left = left.to(self._device)
        with full_precision():
            for a in range(start, len(self._z), self._width):
                yield a, left @ self._z[a : a + self._width].to(self._device).T


def _slack(embedding: Embedding) -> np.ndarray:
    """Return how far `s` of two products may exceed the true one of either, for each row of the pool.

    Rows similar to a given one are at most about twice as far out (see `comparison_margin`).
    """
    slack = comparison_margin(embedding.bias)
    if embedding.exact.far == -np.inf and embedding.exponential:
        return slack
    d = embedding.vectors.shape[1]
    return slack + np.float32((d + 16) * np.finfo(np.float32).eps) * (128 + 4 * np.abs(embedding.bias))
