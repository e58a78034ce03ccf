"""Greedy maximum coverage by sets of rows, which begins anew when all is covered; compiled by numba."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy.candidate_lists import sift_down
from aliquot.selection.greedy.numba_simd import compiled
from aliquot.selection.purse import Purse, spending
from aliquot.types import Selection

_PATIENCE = 1 << 26  # entries of sets read between two progress updates


class Sets(NamedTuple):
    """Set j is rows[start[j] : start[j + 1]]."""

    start: np.ndarray
    rows: np.ndarray


class Covered(NamedTuple):
    """A selection by coverage.

    Args:
        selection: the rows in the order picked; a gain is the number of rows that were covered first by the pick.
        turns: how often coverage has begun.
        share: of the rows to be covered, those that are covered since it last began.
    """

    selection: Selection
    turns: int
    share: float


class _State(NamedTuple):
    """The rows to be covered, those that are not yet, the rows selected; and [uncovered rows, turns begun]."""

    targets: np.ndarray
    uncovered: np.ndarray
    chosen: np.ndarray
    numbers: np.ndarray


def greedy_cover(
    sets: Sets, targets: Bool[np.ndarray, " n"], start: Selection, k: int, purse: Purse | None = None
) -> Covered:
    """Select k rows, each with the set that covers the most uncovered targets at its turn; ties go to the lower row.

    When all targets are covered, coverage begins anew for those that are not selected. Within one coverage, gains only
    fall, so old ones are upper bounds and few are computed anew.

    Args:
        sets: of each row; that of a target holds at least the row itself.
        targets: the rows that are to be covered, and that may be selected.
        start: rows selected earlier, also other than targets, which stay and come first with the gains they have.
        k: rows to select, including those of `start`; there are as many targets.
        purse: what rows cost and may cost, or None. With one, k is the most rows.
    """
    n, picked = len(targets), len(start)
    indices, gains = np.empty(k, dtype=np.int64), np.empty(k)
    indices[:picked], gains[:picked] = start.indices, start.gains
    state = _State(targets, targets.copy(), np.zeros(n, dtype=np.bool_), np.array([int(targets.sum()), 1]))
    for row in start.indices:
        _choose(row, sets, state)
    open_, spent = targets & ~state.chosen, spending(purse, start.indices)
    with Progress("coverage", k, "pick", done=picked) as progress:
        while picked < k and open_.any():
            before, heap = picked, np.flatnonzero(open_)
            bound, stamp = np.diff(sets.start), np.full(n, -1)
            worth = bound if purse is None else purse.worth(bound)
            picked = _pick(heap, bound, worth, stamp, sets, state, *spent, indices, gains, picked, _PATIENCE)
            progress.update(picked - before)
            open_ &= ~state.chosen & (True if purse is None else purse.affordable(spent.left[0]))
    uncovered, turns = state.numbers
    return Covered(
        Selection(indices[:picked], gains[:picked]), int(turns), 1 - int(uncovered) / max(1, int(targets.sum()))
    )


@compiled
def _begin_anew(state: _State) -> None:
    """Uncover all targets that are not selected."""
    state.numbers[1] += 1
    for i in range(len(state.targets)):
        state.uncovered[i] = state.targets[i] and not state.chosen[i]
        state.numbers[0] += state.uncovered[i]


@compiled
def _choose(row: int, sets: Sets, state: _State) -> None:
    """Cover the set of a row; coverage begins anew before if all was covered."""
    if state.numbers[0] == 0:
        _begin_anew(state)
    state.chosen[row] = True
    for p in range(sets.start[row], sets.start[row + 1]):
        i = sets.rows[p]
        if state.uncovered[i]:
            state.uncovered[i] = False
            state.numbers[0] -= 1


@compiled
def _gain(row: int, sets: Sets, uncovered: np.ndarray) -> int:
    gain = 0
    for p in range(sets.start[row], sets.start[row + 1]):
        gain += int(uncovered[sets.rows[p]])
    return gain


@compiled
def _pick(
    heap: np.ndarray,
    bound: np.ndarray,
    worth: np.ndarray,
    stamp: np.ndarray,
    sets: Sets,
    state: _State,
    costs: np.ndarray | None,
    divisor: np.ndarray | None,
    left: np.ndarray,
    indices: np.ndarray,
    gains: np.ndarray,
    picked: int,
    patience: int,
) -> int:
    """Run lazy greedy until all is covered, no row is left or `patience` entries have been read.

    `worth` and what is spent are as in `pick_from_lists`.

    Returns:
        The number of picks.
    """
    if state.numbers[0] == 0:
        _begin_anew(state)
    size = len(heap)
    for position in range(size // 2 - 1, -1, -1):
        sift_down(heap, size, position, worth)
    while picked < len(indices) and patience > 0 and size > 0:
        j = heap[0]
        if costs is not None and costs[j] > left[0]:
            size -= 1
            heap[0] = heap[size]
        elif stamp[j] != picked:
            patience -= int(sets.start[j + 1] - sets.start[j])
            bound[j], stamp[j] = _gain(j, sets, state.uncovered), picked
            if divisor is not None:
                worth[j] = bound[j] / divisor[j]
        else:
            _choose(j, sets, state)
            indices[picked], gains[picked] = j, bound[j]
            picked += 1
            size -= 1
            heap[0] = heap[size]
            if costs is not None:
                left[0] -= costs[j]
            if state.numbers[0] == 0:
                break
        if size > 0:
            sift_down(heap, size, 0, worth)
    return picked
