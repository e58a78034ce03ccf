"""The dense passes of `facility_location`: products of candidates with the whole pool, tile by tile, on all cores.

A pair is always multiplied in a tile of the same shape, at the same position. Products of another shape may round
differently: equal candidates would not tie, and an extended ranking would not match a shorter one bit for bit.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np

from aliquot.selection.greedy import passes_loops as tiles
from aliquot.selection.greedy.cover import Cover, levels
from aliquot.selection.kernels import Embedding

STRIP = 2048  # rows of a strip of the symmetric pass: whole tiles
UNIT = 512  # candidates of one product
WIDTH = 512  # pool rows of one product: the tile is read while it is in the L2 cache
_TASK = 8  # tiles of one task


class Pieces(NamedTuple):
    """The gains of a batch of candidates, and the rows on which they gain.

    Args:
        gains: int64 (batch,), in quanta.
        starts, lengths: int64 (batch, tiles): the list of each candidate in each tile of the pool; length -1 if there
            was no room for it. Candidate c has the entries starts[c, t] : starts[c, t] + lengths[c, t].
        rows, quanta: int32, the entries of the lists: rows of the pool and their similarities.
    """

    gains: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    quanta: np.ndarray


class Passes(Protocol):
    """Passes over the pool on some device."""

    def sums(self, first: int, cover: Cover, weight: np.ndarray) -> Iterator[np.ndarray]:
        """Yield, for each strip from `first` onward, what it adds to the gains of its and later rows, float64 (2, any).

        These are the gains without a cover and those above it, up to rounding. All strips together contain every pair
        of rows once, for both of its candidates.
        """
        ...

    def scan(self, batch: np.ndarray, cover: Cover, weight: np.ndarray | None, scratch: np.ndarray) -> Pieces:
        """Return the gains and lists of a batch, preferably of `UNIT` candidates.

        The lists are stored in `scratch`, int32 (2, any), until the next call.
        """
        ...

    def cover_by(self, chosen: np.ndarray, cover: Cover) -> None:
        """Raise the cover to the similarities with the selected rows."""
        ...


def empty_lists(size: int, n: int, scratch: np.ndarray) -> Pieces:
    """Return the empty result of a batch of `size` candidates."""
    lists = (size, -(-n // WIDTH))
    rows, quanta = scratch
    return Pieces(np.zeros(size, np.int64), np.zeros(lists, np.int64), np.zeros(lists, np.int64), rows, quanta)


class HostPasses:
    """Passes on the CPU: numpy's products, in parallel on threads of our own."""

    def __init__(self, embedding: Embedding, workers: ThreadPoolExecutor) -> None:
        self._z, self._bias, self._exponential = embedding.vectors, embedding.bias, embedding.exponential
        self._workers = workers

    def sums(self, first: int, cover: Cover, weight: np.ndarray) -> Iterator[np.ndarray]:
        n = len(self._z)
        level = levels(cover)

        def strip(first: int) -> np.ndarray:
            total = np.zeros((2, n - first))
            own = slice(first, first + STRIP)
            own_sums = np.zeros((2, len(self._bias[own])), dtype=np.float32)
            for a, product in _products(self._z[own], self._z, first, n):
                other = slice(a, a + product.shape[1])
                sums = np.zeros((2, product.shape[1]), dtype=np.float32)
                tiles.sum_tile(
                    product, self._bias[own], self._bias[other], level[own], level[other], weight[own], weight[other],
                    own_sums, sums, self._exponential,
                )  # fmt: skip
                if a >= own.stop:  # a strip times itself contains both triangles
                    total[:, a - first : a - first + product.shape[1]] += sums
                total[:, : own_sums.shape[1]] += own_sums
                own_sums[:] = 0
            return total

        return self._workers.map(strip, range(first, n, STRIP))

    def scan(self, batch: np.ndarray, cover: Cover, weight: np.ndarray | None, scratch: np.ndarray) -> Pieces:
        found = empty_lists(len(batch), len(self._z), scratch)
        ends, lock = [0], Lock()

        def keep(num: int) -> int | None:
            """Return where the next `num` entries go; None if they do not fit."""
            with lock:
                if ends[-1] + num > len(found.rows):
                    return None
                ends.append(ends[-1] + num)
                return ends[-2]

        def task(first: int) -> np.ndarray:
            gains = np.zeros(len(batch), dtype=np.int64)
            own = np.empty((2, UNIT * WIDTH + 1), dtype=np.int32)
            for unit in range(0, len(batch), UNIT):
                some = slice(unit, unit + UNIT)
                rows = batch[some]
                for a, product in _products(self._unit(rows), self._z, first, first + _TASK * WIDTH):
                    lengths = found.lengths[some, a // WIDTH]
                    num = tiles.scan_tile(product[: len(rows)], a, rows, cover, weight, gains[some], lengths, *own)
                    at = keep(num)
                    if at is None:
                        lengths[lengths > 0] = -1
                        continue
                    found.starts[some, a // WIDTH] = at + np.cumsum(lengths) - lengths
                    found.rows[at : at + num], found.quanta[at : at + num] = own[:, :num]
            return gains

        for gains in self._workers.map(task, range(0, len(self._z), _TASK * WIDTH)):
            found.gains[:] += gains
        return found

    def cover_by(self, chosen: np.ndarray, cover: Cover) -> None:
        def task(first: int) -> None:  # no other task has the same rows of the pool
            for unit in range(0, len(chosen), UNIT):
                rows = chosen[unit : unit + UNIT]
                for a, product in _products(self._unit(rows), self._z, first, first + _TASK * WIDTH):
                    tiles.raise_tile(product[: len(rows)], a, rows, cover)

        list(self._workers.map(task, range(0, len(self._z), _TASK * WIDTH)))

    def _unit(self, rows: np.ndarray) -> np.ndarray:
        return self._z[np.resize(rows, UNIT)]


def _products(left: np.ndarray, right: np.ndarray, start: int, end: int) -> Generator[tuple[int, np.ndarray]]:
    """Yield left . right[start:end]^T in tiles, with the first column of each; the memory is reused."""
    buffer = np.empty(len(left) * WIDTH, dtype=np.float32)
    for a in range(start, min(end, len(right)), WIDTH):
        part = right[a : min(a + WIDTH, end)]
        product = buffer[: len(left) * len(part)].reshape(len(left), len(part))
        yield a, np.matmul(left, part.T, out=product)
