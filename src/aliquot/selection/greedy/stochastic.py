"""Stochastic greedy: at each turn the best of a random sample (Mirzasoleiman et al. 2015).

The samples of several turns are drawn together and are disjoint, so one product gives their similarities with the
pool. Gains are sums of integer quanta, exact in any order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int32, Int64

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.exact_similarities import for_loops
from aliquot.selection.greedy.fixed_point import ONE, quanta_of_tile
from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.greedy.workers import numpy_workers
from aliquot.selection.kernels import Embedding
from aliquot.types import Selection

_UNIT, _WIDTH = 128, 4096  # candidates and pool rows of one product: 2 MB, the L2 cache
_TOGETHER = 128  # candidates drawn together


def stochastic_greedy(
    embedding: Embedding, start: Selection, k: int, size: int, seed: int, workspace: Workspace
) -> Selection:
    """Select k rows, each the best of `size` candidates; ties go to the lower row.

    Args:
        embedding: the features as a kernel sees them.
        start: rows selected earlier, which stay and come first with the gains they have.
        k: rows to select, including those of `start`.
        size: of each sample; the last samples hold all remaining rows.
        seed: of the samples.
        workspace: where the ranking saves its state.

    Returns:
        The rows in the order picked; gains are marginal gains in f.
    """
    with numpy_workers() as workers:
        greedy = _Stochastic(embedding, start, k, size, seed, workers)
        return greedy.run(Checkpoint(workspace.directory, embedding, start.indices, k, size, seed))


class _Stochastic:
    """State of one maximization. Covers and gains are in quanta; `picked` counts the picks made and covered."""

    def __init__(
        self, embedding: Embedding, start: Selection, k: int, size: int, seed: int, workers: ThreadPoolExecutor
    ) -> None:
        self.embedding, self.start, self.size, self.seed = embedding, start, size, seed
        self.workers, self.exact = workers, for_loops(embedding.exact)
        self.n = len(embedding)
        self.cover = np.zeros(self.n, dtype=np.int32)
        self.chosen = np.zeros(self.n, dtype=bool)
        self.indices, self.gains = np.empty(k, dtype=np.int64), np.zeros(k, dtype=np.int64)
        self.indices[: len(start)] = start.indices
        self.picked = 0

    def run(self, checkpoint: Checkpoint) -> Selection:
        k, given = len(self.indices), len(self.start)
        self._begin(checkpoint.load())
        turn = 0
        with Progress("stochastic greedy", k, "pick", done=self.picked) as progress:
            while self.picked < k:
                before, samples = self.picked, self._samples(turn)
                turn += len(samples)
                if turn > before:
                    self._pick(samples[before - turn :][: k - before])
                    progress.update(self.picked - before, gain=f"{self.gains[self.picked - 1] / float(ONE):.4g}")
                if checkpoint.due():
                    checkpoint.save(self._state())
        return Selection(self.indices, np.concatenate([self.start.gains, self.gains[given:] / float(ONE)]))

    def _samples(self, turn: int) -> list[Int64[np.ndarray, " s"]]:
        """Return the samples of some turns from `turn` onward; the number of turns does not depend on the picks."""
        left = self.n - turn
        size = min(self.size, left)
        num_turns = max(1, min(_TOGETHER // size, left // size))
        if turn + num_turns <= self.picked:  # already done: only their number matters
            return num_turns * [np.empty(0, dtype=np.int64)]
        rows = np.delete(np.arange(self.n), self.indices[:turn])
        drawn = np.random.default_rng((self.seed, turn)).choice(left, num_turns * size, replace=False)
        return [np.sort(rows[sample]) for sample in drawn.reshape(num_turns, size)]

    def _pick(self, samples: list[Int64[np.ndarray, " s"]]) -> None:
        """Pick one row of each sample; their similarities are computed together if they fit in one product."""
        together, first = np.concatenate(samples), 0
        known = self._similarities(together) if len(together) <= _UNIT else None
        for sample in samples:
            candidates = self._unchosen(sample)
            row, gain, similar = -1, -1, np.empty(0, dtype=np.int32)
            for a in range(0, len(candidates), _UNIT):
                part = candidates[a : a + _UNIT]
                if known is not None and candidates is sample:
                    block = known[first : first + len(part)]
                else:
                    block = self._similarities(part)
                best, highest = _best(block, self.cover)
                if highest > gain:
                    row, gain, similar = part[best], highest, block[best]
            np.maximum(self.cover, similar, out=self.cover)
            self.indices[self.picked], self.gains[self.picked] = row, gain
            self.chosen[row] = True
            self.picked += 1
            first += len(sample)

    def _unchosen(self, sample: Int64[np.ndarray, " s"]) -> Int64[np.ndarray, " s"]:
        """Leave out the rows of a start from another source; if that empties the sample, take all remaining rows."""
        free = ~self.chosen[sample]
        if free.all():
            return sample
        return sample[free] if free.any() else np.flatnonzero(~self.chosen)

    def _similarities(self, rows: Int64[np.ndarray, " s"]) -> Int32[np.ndarray, "s n"]:
        """Return the similarities of at most _UNIT rows with the whole pool, in quanta."""
        z, bias = self.embedding.vectors, self.embedding.bias
        # Always _UNIT rows: products of another shape round differently, and equal candidates would not tie.
        left, similar = z[np.resize(rows, _UNIT)], np.empty((len(rows), self.n), dtype=np.int32)

        def tile(first: int) -> None:
            columns = slice(first, first + _WIDTH)
            product = left @ z[columns].T
            quanta_of_tile(product, rows, first, bias, self.embedding.exponential, self.exact, similar[:, columns])

        list(self.workers.map(tile, range(0, self.n, _WIDTH)))
        return similar

    def _state(self) -> dict[str, np.ndarray]:
        return {"indices": self.indices[: self.picked], "gains": self.gains[: self.picked], "cover": self.cover}

    def _begin(self, saved: dict[str, np.ndarray]) -> None:
        """Resume the saved ranking, or cover the pool by the start."""
        if saved:
            self.picked, self.cover = len(saved["indices"]), saved["cover"]
            self.indices[: self.picked], self.gains[: self.picked] = saved["indices"], saved["gains"]
        else:
            self.picked = len(self.start)
            for first in range(0, self.picked, _UNIT):
                similar = self._similarities(self.indices[first : min(first + _UNIT, self.picked)])
                np.maximum(self.cover, similar.max(axis=0), out=self.cover)
        self.chosen[self.indices[: self.picked]] = True


@compiled
def _best(similar: np.ndarray, cover: np.ndarray) -> tuple[int, int]:
    """Return the candidate with the largest gain, the first among equals, and its gain."""
    best, highest = 0, -1
    for c in range(len(similar)):
        gain = 0
        for i in range(len(cover)):
            gain += max(similar[c, i] - cover[i], 0)
        if gain > highest:
            best, highest = c, gain
    return best, highest
