"""Greedy facility location, exact, at the cost of a few matrix products and without the n x n matrix.

With similarities w_ij in [0, 1] and weights a_i, the set function and the gain of a candidate j are

    f(S) = sum_i a_i max_{s in S} w_is     gain(j) = sum_i a_i max(0, w_ij - cover_i),  cover_i = max_{s in S} w_is

Greedy reaches 1 - 1/e of the best f (Nemhauser, Wolsey, Fisher 1978). Covers only rise, so gains only fall and an old
gain is an upper bound (lazy greedy, Minoux 1978). Three things make it fast:

1. Bounds for all candidates come from one pass over the upper triangle of the tiles of Z Z^T. The first pick often
   takes most of all gains, so the pass sums the gains before it and after it; the pick is guessed from a sample.
2. Outdated candidates are refreshed in batches: one product with the pool, of which only the pairs that beat the
   cover (compared as exponents, a few percent) are examined.
3. Those pairs are kept as the candidate's *list*. A pair once overtaken by the cover stays so: every later refresh
   walks the list, which only shrinks. A budget limits the lists; a candidate without a list is refreshed by a product.

Similarities are counted in integer quanta of 2^-30 and weights in integers, so sums are exact in any order: the
number of threads, the budget and interruptions cannot change a pick, and equal candidates tie exactly. Ties go to the
lower row.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, Int32, Int64

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy.bounds import Bounds, promising
from aliquot.selection.greedy.candidate_lists import INEXACT, OUT, ListStore, pick_from_lists
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.cover import no_cover, raise_all
from aliquot.selection.greedy.fixed_point import integer_weights
from aliquot.selection.greedy.islands import islands, merged
from aliquot.selection.greedy.passes import UNIT, HostPasses, Passes
from aliquot.selection.greedy.workers import numpy_workers
from aliquot.selection.kernels import Embedding
from aliquot.selection.purse import Purse, spending
from aliquot.types import Selection

_SCRATCH = 1 << 24  # maximum list entries found by one batch
_ENTRIES_PER_ROW = 500  # default budget of kept list entries, per row of the pool
_LOSS = 16  # all bounds are recomputed once 1 in 16 rows has lost its list between two picks
_OVERDUE = 10  # and 1 in 10 would have to be refreshed for the next pick
_PATIENCE = 1 << 27  # list entries read between two looks at the clock: under a second
_COVERED = 4096  # rows of a start covered between two such looks
_UNKNOWN = np.iinfo(np.int64).max


def facility_location(
    embedding: Embedding,
    k: int,
    *,
    start: Selection | None = None,
    weights: Float32[np.ndarray, " n"] | None = None,
    cap: Int32[np.ndarray, " n"] | None = None,
    candidates: Int64[np.ndarray, " m"] | None = None,
    workspace: Workspace | None = None,
    cache_entries: int | None = None,
    purse: Purse | None = None,
) -> Selection:
    """Select k rows by greedy maximization of facility location.

    Args:
        embedding: the features as a kernel sees them.
        k: rows to select, including those of `start`.
        start: rows selected earlier, which stay and come first with the gains they have.
        weights: a, the weight of each row of the pool, 0 or more; None means 1.
        cap: in quanta, the largest similarity that counts for each row of the pool: f(S) then sums min(cap_i, max_s
            w_is), which is submodular too; None means 1 for all.
        candidates: the rows that may be selected, all if None. The whole pool is covered in any case.
        workspace: the directory and device of the ranking.
        cache_entries: budget of list entries (8 bytes each), 500 n if None. It changes the time, never the result.
        purse: what rows cost and may cost, or None. With one, k is the most rows, and fewer come back when no other
            fits. Gains per cost are quotients in float64: a bound divided by the cost is a bound too. Islands are not
            ranked one by one, because all spend from one purse.

    Returns:
        The rows in the order picked; gains are marginal gains, exact to about 1e-5, and sum to f of the whole set.

    Raises:
        ValueError: there are fewer candidates than picks, or weights are negative, not finite or all 0.
    """
    start, workspace = start or Selection.none(), workspace or Workspace()
    if len(start) >= k:
        return start.head(k)
    entries = _ENTRIES_PER_ROW * len(embedding) if cache_entries is None else cache_entries
    allowed = np.setdiff1d(np.arange(len(embedding)) if candidates is None else candidates, start.indices)
    if k - len(start) > len(allowed):
        raise ValueError(
            f"budget {k} asks for {k - len(start)} more prompts than the {len(start)} chosen before, and "
            f"{len(allowed)} candidates remain; lower it, or allow more candidates"
        )
    integers, quantum = integer_weights(weights)

    def rank(number: int, start: Selection, k: int) -> Selection:
        """Select rows from an island."""
        rows, part = parts[number]
        some = np.flatnonzero(np.isin(rows, allowed))
        directory = workspace.directory and workspace.directory / f"island_{number}"
        weight, capped = None if integers is None else integers[rows], None if cap is None else cap[rows]
        greedy = _Greedy(part, k, start, (weight, quantum), some, entries * len(rows) // len(embedding), capped)
        checkpoint = Checkpoint(directory, part, weight, some, start.indices, *([] if cap is None else [capped]))
        return greedy.run(passes_on(workspace.device, part, workers), checkpoint) if k > len(start) else start

    with numpy_workers() as workers:
        if purse is None and (parts := islands(embedding)):
            return merged([rows for rows, _ in parts], rank, start, k, allowed)
        more = [part for part in (cap, purse) if part is not None]
        checkpoint = Checkpoint(workspace.directory, embedding, weights, candidates, start.indices, *more)
        greedy = _Greedy(embedding, k, start, (integers, quantum), allowed, entries, cap, purse)
        return greedy.run(passes_on(workspace.device, embedding, workers), checkpoint)


class _Greedy:
    """State of one maximization. Bounds, covers and gains are in quanta; `picked` counts the picks made and covered."""

    def __init__(
        self,
        embedding: Embedding,
        k: int,
        start: Selection,
        weights: tuple[np.ndarray | None, float],
        candidates: np.ndarray,
        cache_entries: int,
        cap: np.ndarray | None = None,
        purse: Purse | None = None,
    ) -> None:
        n = len(embedding)
        self.embedding, self.start = embedding, start
        self.weight, self.quantum = weights
        self.indices, self.gains = np.empty(k, dtype=np.int64), np.zeros(k, dtype=np.int64)
        self.indices[: len(start)] = start.indices
        self.picked = 0
        self.bound = np.full(n, _UNKNOWN)
        self.stamp = np.full(n, INEXACT)  # picks made when the bound was exact
        self.stamp[np.setdiff1d(np.arange(n), candidates)] = OUT
        self.purse, self.spending = purse, spending(purse, start.indices)
        self.cover = no_cover(embedding, cap)
        self.store = ListStore(n, cache_entries)
        self.scratch = np.empty((2, _SCRATCH), dtype=np.int32)  # rows and quanta of a batch's lists
        self.bounds = Bounds(embedding, self.weight)
        self.bounded_at = -1  # picks made at the last pass for bounds
        self.guess = -1  # the first pick, before it is known
        self.refreshed_at = 0  # picks made at the last refresh by a product
        self.num_lost = n  # lists lost since the last pick for lack of room; at first, no row has one

    def run(self, passes: Passes, checkpoint: Checkpoint) -> Selection:
        budget = len(self.indices)
        if saved := checkpoint.load():
            self._restore(saved)
        if self.bounds.done < len(self.bound):
            self._bound_all(passes, checkpoint)
        # Most picks come at the end: the time goes into finding each prompt's list, for most of them once.
        settled = self._num_settled()
        with Progress("facility location", len(self.bound), "prompt", done=settled) as progress:
            while self.picked < budget and (self.picked < len(self.start) or (self.stamp != OUT).any()):
                if self.picked < len(self.start):
                    self._cover_start(passes)
                else:
                    self._advance(passes, checkpoint)
                before, settled = settled, self._num_settled()
                gain = self.gains[max(self.picked - 1, 0)] * self.quantum
                progress.update(settled - before, picked=f"{self.picked:,}/{budget:,}", gain=f"{gain:.4g}")
                if checkpoint.due():
                    checkpoint.save(self._state())
        gains = np.concatenate([self.start.gains, self.gains[len(self.start) : self.picked] * self.quantum])
        return Selection(self.indices[: self.picked], gains)

    def _advance(self, passes: Passes, checkpoint: Checkpoint) -> None:
        """Pick as long as lists suffice, then handle the best row, which has no list."""
        if self.guess >= 0 and self.picked == 1:
            if self.indices[0] == self.guess:
                self._lower_bounds(above_cover=True)
            self.guess = -1
        if self.spending.costs is not None:
            self.stamp[self.spending.costs > self.spending.left[0]] = OUT
        heap = np.flatnonzero(self.stamp != OUT)
        end = 1 if self.guess >= 0 and self.picked == 0 else len(self.indices)
        self.picked, row = pick_from_lists(
            heap, self.bound, self._worth(), self.stamp, self.store.lists, self.cover, self.weight, *self.spending,
            self.indices[:end], self.gains, self.picked, _PATIENCE,
        )  # fmt: skip
        if row < 0:
            return
        if self.stamp[row] == self.picked:  # exact, but its list was too long to keep
            passes.cover_by(np.array([row]), self.cover)
            self.indices[self.picked], self.gains[self.picked] = row, self.bound[row]
            self.stamp[row] = OUT
            self.picked += 1
            if self.spending.costs is not None:
                self.spending.left[0] -= self.spending.costs[row]
            return
        waiting = np.flatnonzero(self.store.missing() & (self.stamp != OUT) & (self.stamp != self.picked))
        if self._needs_new_bounds(waiting):
            self.bounds.begin()
            if self.picked == 0:
                self._guess_first(waiting, passes)
            self._bound_all(passes, checkpoint)
        else:
            self._refresh(waiting, passes)

    def _cover_start(self, passes: Passes) -> None:
        end = min(self.picked + _COVERED, len(self.start))
        passes.cover_by(self.indices[self.picked : end], self.cover)
        self.picked, self.num_lost = end, 0

    def _needs_new_bounds(self, waiting: np.ndarray) -> bool:
        """Tell whether bounds for all are cheaper than refreshing the rows that come before the next pick."""
        if not self.picked == self.refreshed_at > self.bounded_at or self.num_lost * _LOSS < len(self.bound):
            return False
        worth = self._worth()
        exact = worth[self.stamp == self.picked]
        return int(np.count_nonzero(worth[waiting] > exact.max(initial=0))) * _OVERDUE > len(self.bound)

    def _bound_all(self, passes: Passes, checkpoint: Checkpoint) -> None:
        """Bound all gains by one pass over the upper triangle of all pairs, or by the rest of it."""
        cover = self.cover._replace(quanta=self.cover.quanta.copy(), limit=self.cover.limit.copy())
        if self.guess >= 0 and self.picked == 0:
            passes.cover_by(np.array([self.guess]), cover)
        with Progress("facility location: bounds", len(self.bound), "prompt", done=self.bounds.done) as progress:
            for sums in passes.sums(self.bounds.done, cover, self.bounds.weight):
                progress.update(self.bounds.add(sums))
                if checkpoint.due():
                    checkpoint.save(self._state())
        self._lower_bounds(above_cover=self.picked > 0)

    def _lower_bounds(self, above_cover: bool) -> None:
        np.minimum(self.bound, self.bounds.in_quanta(above_cover), out=self.bound)
        self.bounded_at = self.picked

    def _guess_first(self, waiting: np.ndarray, passes: Passes) -> None:
        """Guess the first pick, so that the pass for the first bounds also gives those after it.

        The guess is the best of the candidates that gain most on a sample of the pool. It need not be right.
        """
        self._refresh(promising(self.embedding, self.weight, waiting, self.spending.divisor), passes)
        self.guess = int(np.argmax(np.where(self.stamp == 0, self._worth(), -1)))

    def _refresh(self, waiting: np.ndarray, passes: Passes) -> None:
        """Make the most promising candidates without a list exact by a product, and keep the lists it finds."""
        size = min(UNIT, len(waiting))
        batch = np.sort(waiting[np.argpartition(-self._worth()[waiting], size - 1)[:size]])
        found = passes.scan(batch, self.cover, self.weight, self.scratch)
        self.bound[batch], self.stamp[batch] = found.gains, self.picked
        num_listed = len(self.store)
        if not self.store.has_room(found):
            exact = self.store.make_room(self.stamp != OUT, self.bound, self.cover.quanta, self.weight)
            self.stamp[exact] = self.picked
        self.store.keep(found, batch)
        if self.refreshed_at < self.picked:
            self.refreshed_at, self.num_lost = self.picked, 0
        self.num_lost += num_listed + size - len(self.store)

    def _worth(self) -> np.ndarray:
        """Return what orders the rows: the bounds themselves, or the bounds per cost."""
        return self.bound if self.purse is None else self.purse.worth(self.bound)

    def _num_settled(self) -> int:
        """Return how many rows have a list, or need none."""
        return len(self.bound) - int(np.count_nonzero(self.store.missing() & (self.stamp != OUT)))

    def _state(self) -> dict[str, np.ndarray]:
        return {
            "indices": self.indices[: self.picked],
            "gains": self.gains[: self.picked],
            "cover": self.cover.quanta,
            "bound": self.bound,
            "stamp": self.stamp,
            "sums": self.bounds.sums,
            "counts": np.array([self.bounds.done, self.bounded_at, self.guess, self.refreshed_at, self.num_lost]),
            **self.store.state(),
        }

    def _restore(self, saved: Mapping[str, np.ndarray]) -> None:
        self.picked = min(len(saved["indices"]), len(self.indices))
        for name in ("indices", "gains"):
            getattr(self, name)[: self.picked] = saved[name][: self.picked]
        raise_all(np.arange(len(self.bound)), saved["cover"], self.cover)
        self.bound, self.stamp, self.bounds.sums = saved["bound"], saved["stamp"], saved["sums"]
        self.spending = spending(self.purse, self.indices[: max(self.picked, len(self.start))])
        counts = (int(count) for count in saved["counts"])
        self.bounds.done, self.bounded_at, self.guess, self.refreshed_at, self.num_lost = counts
        self.store.restore(saved)


def passes_on(device: str, embedding: Embedding, workers: ThreadPoolExecutor) -> Passes:
    """Return the passes for a torch device; those on the CPU run on `workers`."""
    if device == "cpu":
        return HostPasses(embedding, workers)
    from aliquot.selection.greedy.passes_torch import DevicePasses  # importing torch takes longer than many rankings

    return DevicePasses(embedding, device)
