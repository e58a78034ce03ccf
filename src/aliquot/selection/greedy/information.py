"""Greedy information gain, exact: the log-determinant of the information in sets of vectors about a linear model.

Block i of a pool is a matrix X_i (T_i, r), one row per token. The set function and the gain of block i are

    f(S) = log det(I + sum_{s in S} X_s^T X_s)        gain(i) = log det(I + Y_i Y_i^T),  Y_i = X_i C

where C C^T is the inverse of A = I + sum_{s in S} X_s^T X_s. f is monotone and submodular: greedy reaches 1 - 1/e of
the best f (Nemhauser, Wolsey, Fisher 1978), and an old gain is an upper bound (lazy greedy, Minoux 1978). In rounds:

1. The blocks with the largest bounds are screened together in float32, with its rounding error added to the bound, and
   those still in the lead are refreshed in float64, until the best gain is above all remaining bounds.
2. The best of these, the *live* ones, keep their Y. Each pick then costs them two thin products, and picks continue
   for as long as a live gain is above all other bounds.

The state is C, neither A nor its inverse: with Y = U S Q^T of the picked block,
C <- C - C Q (1 - (1 + S^2)^(-1/2)) Q^T. A^-1 therefore stays positive definite, for vectors up to 1e8 long. C and the
reported gains depend only on the picks and not on the rounds: a ranking that is extended equals one made at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.ragged import Blocks, log_det, padded, rounding
from aliquot.selection.greedy.workers import torch_workers
from aliquot.selection.purse import Purse
from aliquot.types import Selection

_FRONT = 8192  # tokens screened together
_LIVE = 1024  # tokens kept up to date from pick to pick
_UNIT = 4096  # tokens of one product, times the bytes of a number
_PART = 4096  # blocks between two progress updates in the first pass
_LONGEST = 1e8  # length of vectors; adding 1 to their squares still registers in float64
_NOTHING = 1e-13  # nats; smaller gains are rounding


def information_gain(
    blocks: Blocks, start: Selection, k: int, workspace: Workspace, what: str, purse: Purse | None = None
) -> Selection:
    """Select k blocks, those of `start` first, by greedy maximization of f.

    Args:
        blocks: the pool.
        start: earlier picks, from any source.
        k: blocks to select, 1..n.
        workspace: where the ranking saves its state, and the device of its products.
        what: label of the progress bar.
        purse: what blocks cost and may cost, or None. With one, k is the most blocks.

    Returns:
        The rows in the order picked. The gains after `start` are marginal gains in nats; those after the first sum to
        the rise of f.

    Raises:
        ValueError: a vector is so long that float64 cannot hold its gain.
    """
    longest = blocks.longest()
    if longest > _LONGEST:
        raise ValueError(
            f"the longest vector is {longest:.3g} times sigma; beyond {_LONGEST:.0e} float64 cannot rank gains; raise "
            "strategy.sigma, or leave that prompt out"
        )
    with torch_workers() as workers:
        return _Greedy(blocks, start, k, workspace, workers, purse).run(start, what)


class _Greedy:
    """State of one maximization: `factor` is C, `bound` at least the gain of every open block, and -1 for all others.

    Among identical blocks, only the first unpicked one is open; otherwise all would be refreshed after each pick. With
    a purse all are open, because they may differ in cost, except those that cost more than is left.
    """

    def __init__(
        self,
        blocks: Blocks,
        start: Selection,
        k: int,
        workspace: Workspace,
        workers: ThreadPoolExecutor,
        purse: Purse | None,
    ) -> None:
        n, r = len(blocks), blocks.vectors.shape[1]
        self.blocks, self.device, self.workers = blocks, workspace.device, workers
        self.widths = padded(blocks.lengths)
        self.factor = torch.eye(r, dtype=torch.float64, device=self.device)
        candidates = np.setdiff1d(np.arange(n), start.indices)
        self.purse = purse
        self.twin = blocks.twins(candidates) if purse is None else np.full(n, -1)
        self.bound = np.full(n, -1.0)
        self.bound[np.setdiff1d(candidates, self.twin)] = np.inf
        self.indices, self.gains = np.empty(k, dtype=np.int64), np.empty(k)
        self.picked = 0
        self.checkpoint = Checkpoint(workspace.directory, blocks, start.indices, *([] if purse is None else [purse]))

    def run(self, start: Selection, what: str) -> Selection:
        saved = self.checkpoint.load()
        if saved:
            self._take_up(saved)
        else:
            for row in start.indices.tolist():
                self._pick(row)
            self.gains[: len(start)] = start.gains
        self._close_dear()
        if np.isinf(self.bound).any():
            self._first_gains(what)
        budget = len(self.indices)
        with Progress(what, budget, "pick", done=self.picked) as progress:
            while self.picked < budget and (self.purse is None or (self.bound >= 0).any()):
                before = self.picked
                self._round()
                self._close_dear()
                progress.update(self.picked - before, gain=f"{self.gains[self.picked - 1]:.3g}")
                if self.checkpoint.due():
                    self._save()
        return Selection(self.indices[: self.picked], self.gains[: self.picked])

    def _close_dear(self) -> None:
        """Close the blocks that cost more than is left."""
        if self.purse is not None:
            self.bound[~self.purse.affordable(self.purse.left(self.indices[: self.picked]))] = -1

    def _worth(self, gains: np.ndarray, rows: Int64[np.ndarray, " b"] | None = None) -> np.ndarray:
        """Return what orders blocks (all if None) of such gains: the gains, or the gains per cost; -1 if closed.

        Costs count relative to the largest, so a gain per cost is at least the gain; what is rounding stays that.
        """
        if self.purse is None or not self.purse.per_cost:
            return gains
        real = np.where(gains < _NOTHING, 0, gains)
        return np.where(gains < 0, -1, self.purse.worth(real, rows) * self.purse.costs.max())

    def _first_gains(self, what: str) -> None:
        rows = np.flatnonzero(np.isinf(self.bound))
        with Progress(f"{what}: first gains", len(rows), "prompt") as progress:
            for part in np.split(rows, range(_PART, len(rows), _PART)):
                self._screen(part)
                progress.update(len(part))
                if self.checkpoint.due():
                    self._save()

    def _take_up(self, saved: Mapping[str, np.ndarray]) -> None:
        self.picked = min(len(saved["indices"]), len(self.indices))
        for name in ("indices", "gains"):
            getattr(self, name)[: self.picked] = saved[name][: self.picked]
        self.bound, self.factor = saved["bound"], torch.from_numpy(saved["factor"]).to(self.device)

    def _save(self) -> None:
        picks = {"indices": self.indices[: self.picked], "gains": self.gains[: self.picked]}
        self.checkpoint.save({**picks, "bound": self.bound, "factor": self.factor.cpu().numpy()})

    def _round(self) -> None:
        """Update the most promising blocks, and pick among them while that is safe."""
        n = len(self.bound)
        screened, exact = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        best = -1.0
        while len(rivals := np.flatnonzero(~exact & ((worth := self._worth(self.bound)) >= max(_tie(best), 0)))):
            if screened[rivals[worth[rivals].argmax()]]:
                rows = self._most_promising(rivals[screened[rivals]], _LIVE)
                self._refresh(rows)
                exact[rows] = True
                best = max(best, self._worth(self.bound[rows], rows).max())
            else:
                rows = self._most_promising(rivals[~screened[rivals]], _FRONT)
                self._screen(rows)
                screened[rows] = True
        if best < _NOTHING:
            if self.picked == 0 or best > 0:
                warnings.warn(
                    f"no prompt tells anything after {self.picked} picks: no gain exceeds {_NOTHING:.0e} nats, so the "
                    "rest of the selection is the order of the pool; lower strategy.sigma, or leave out prompts whose "
                    "vectors are far longer than others",
                    stacklevel=2,
                )
            self._fill()
            return
        # A block below a bound now cannot be picked in this round, and is not worth updating.
        worth = self._worth(self.bound)
        rest = np.where(exact, -1, worth).max()
        live = self._most_promising(np.flatnonzero(exact & (worth > rest)), _LIVE)
        others = worth.copy()
        others[live] = -1
        self._pick_among(np.sort(live), others.max())

    def _most_promising(self, rows: Int64[np.ndarray, " m"], tokens: int) -> Int64[np.ndarray, " b"]:
        """Return the rows of largest bound, with at most `tokens` tokens in all but at least one row.

        Rows that tie with the largest bound come in row order, however many there are: one of them is picked.
        """
        size = min(len(rows), tokens // 4)  # short blocks cost more than their tokens
        worth = self._worth(self.bound)
        ties = worth[rows] >= _tie(worth[rows].max())
        top, rest = rows[ties][:size], rows[~ties]
        if (more := min(size - len(top), len(rest))) > 0:
            rest = rest[np.argpartition(-worth[rest], more - 1)[:more]]
            top = np.concatenate([top, rest[np.lexsort((rest, -worth[rest]))]])
        return top[: max(1, int(np.searchsorted(np.cumsum(self.widths[top]), tokens, side="right")))]

    def _screen(self, rows: Int64[np.ndarray, " b"]) -> None:
        """Lower the bounds of some blocks to about their gains; on a CPU, float32 is several times as fast."""
        dtype = torch.float32 if self.device == "cpu" else torch.float64
        factor = self.factor.to(dtype)
        size = float(torch.linalg.matrix_norm(factor))

        def screen(unit: np.ndarray, x: Tensor) -> None:
            y = x @ factor
            gains = log_det(y).cpu().numpy() + rounding(x, y, size).cpu().numpy()
            # NaN where float32 is too narrow; the old bound then stays.
            self.bound[unit] = np.fmin(self.bound[unit], gains[: len(unit)])

        self._by_units(rows, dtype, screen)

    def _refresh(self, rows: Int64[np.ndarray, " b"]) -> None:
        """Set the bounds of some blocks to their gains."""

        def refresh(unit: np.ndarray, x: Tensor) -> None:
            self.bound[unit] = log_det(x @ self.factor).cpu().numpy()[: len(unit)]

        self._by_units(rows, torch.float64, refresh)

    def _by_units(
        self, rows: Int64[np.ndarray, " b"], dtype: torch.dtype, do: Callable[[np.ndarray, Tensor], None]
    ) -> None:
        """Call `do` in parallel with the rows and the X of `_UNIT` tokens at a time."""
        units: list[np.ndarray] = []
        for width in np.unique(self.widths[rows]):
            those, size = rows[self.widths[rows] == width], max(1, _UNIT // dtype.itemsize // width)
            units += np.split(those, range(size, len(those), size))

        def unit(part: np.ndarray) -> None:
            width = int(self.widths[part[0]])
            # Always the same number of rows: products of other shapes round differently, and equal blocks would not tie
            rows = np.resize(part, max(1, _UNIT // dtype.itemsize // width))
            do(part, self.blocks.gather(rows, width, dtype, self.device))

        list(self.workers.map(unit, units))

    def _pick_among(self, live: Int64[np.ndarray, " b"], rest: float) -> None:
        """Pick the best of some fresh blocks, and continue while the next is above `rest`, the bound of the others."""
        y = self.blocks.gather(live, int(self.widths[live].max()), torch.float64, self.device) @ self.factor
        flat, gains = y.view(-1, y.shape[2]), self.bound[live]
        while True:
            worth = self._worth(gains, live)
            p = int(np.argmax(worth >= _tie(worth.max())))
            row, twin = int(live[p]), int(self.twin[live[p]])
            q, shrunk = self._pick(row)
            if twin >= 0:
                self.bound[twin] = gains[p]
                rest = max(rest, gains[p])
            flat.addmm_(flat @ shrunk, q.mT, alpha=-1)
            gains = np.where(gains < 0, -1, np.minimum(gains, log_det(y).cpu().numpy()))
            gains[p] = -1
            if self.purse is not None:
                gains[self.purse.costs[live] > self.purse.left(self.indices[: self.picked])] = -1
            if self.picked == len(self.indices) or _tie(self._worth(gains, live).max()) <= rest:
                break
        self.bound[live] = gains

    def _pick(self, row: int) -> tuple[Tensor, Tensor]:
        """Add a block; return Q and Q (1 - (1 + S^2)^(-1/2)), by which every Y changes."""
        x = self.blocks.gather(np.array([row]), int(self.widths[row]), torch.float64, self.device)[0]
        _, values, directions = torch.linalg.svd(x @ self.factor, full_matrices=False)
        q, squares = directions.mT, values.square()
        shrunk = q * (1 - (1 + squares).rsqrt())
        self.factor.addmm_(self.factor @ shrunk, q.mT, alpha=-1)
        self.indices[self.picked], self.gains[self.picked] = row, float(squares.log1p().sum())
        self.bound[row] = -1
        self.picked += 1
        return q, shrunk

    def _fill(self) -> None:
        """Append the remaining rows in order, those that fit: none of them adds information."""
        if self.purse is not None:
            n, chosen = len(self.bound), Selection(self.indices[: self.picked], self.gains[: self.picked])
            filled = self.purse.fill(chosen, Selection(np.arange(n), np.zeros(n)), len(self.indices))
            self.picked = len(filled)
            self.indices[: self.picked], self.gains[: self.picked] = filled.indices, filled.gains
            self.bound[:] = -1
            return
        rest = np.setdiff1d(np.arange(len(self.bound)), self.indices[: self.picked])
        self.indices[self.picked :] = rest[: len(self.indices) - self.picked]
        self.gains[self.picked :] = 0
        self.picked = len(self.indices)


def _tie(gain: float) -> float:
    """Return the smallest gain that counts as equal."""
    return gain if np.isinf(gain) else gain - 1e-11 * abs(gain) - _NOTHING
