"""The m most similar prompts of every prompt, without the n x n matrix.

Exact search multiplies all pairs, tile by tile, and keeps the best of each row so far; among equally similar prompts,
the lower rows. Approximate search is an inverted file of faiss (Johnson, Douze, Jégou 2019): k-means puts the prompts
into cells, and a prompt is compared with those in the cells nearest to it. A prompt is always its own first neighbor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Int64

from aliquot.runtime.progress import Progress
from aliquot.selection.greedy import neighbor_loops as loops
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.exact_similarities import exact_s_of_pairs, for_loops
from aliquot.selection.greedy.fixed_point import ONE
from aliquot.selection.greedy.workers import full_precision, numpy_workers
from aliquot.selection.kernels import Embedding

_BLOCK = 8192  # prompts between two checks of the clock
_UNIT, _WIDTH = 256, 2048  # prompts and pool rows of one product: 2 MB, the second-level cache
_DEVICE_UNIT, _DEVICE_WIDTH = 1024, 8192  # the same on a device
_ROOM = 256  # keys a row may hold beyond m before it is cut back to the best m
_CELL, _PROBES = 125, 8  # prompts in a cell, and cells searched, of the inverted file
_LOWEST = (1 << 32) - 1

Rows = Int64[np.ndarray, " b"]


@dataclass(frozen=True)
class Neighbors:
    """The neighbors of prompts, one row each, most similar first.

    Args:
        rows: of the pool; the prompt itself comes first.
        quanta: similarities in quanta of 2^-30; 0 after the last neighbor, where no other prompt is similar.
    """

    rows: Int32[np.ndarray, "b m"]
    quanta: Int32[np.ndarray, "b m"]

    @classmethod
    def empty(cls, b: int, m: int) -> Neighbors:
        return cls(np.zeros((b, m), dtype=np.int32), np.zeros((b, m), dtype=np.int32))


#: Returns the neighbors of the prompts in some rows.
Search = Callable[[Rows], Neighbors]


def nearest(embedding: Embedding, m: int, approximate: bool, workspace: Workspace) -> Neighbors:
    """Return the m most similar prompts of every prompt, or all if there are fewer.

    The number of threads does not change the result. Products on another device round differently.
    """
    m, order = min(m, len(embedding)), np.arange(len(embedding))
    if approximate:
        search, order = cell_search(embedding, m)
    elif workspace.device == "cpu":
        search = tile_search(embedding, m)
    else:
        search = device_search(embedding, m, workspace.device)
    return _by_blocks(search, order, m, Checkpoint(workspace.directory, embedding, m, approximate))


def _by_blocks(search: Search, order: Rows, m: int, checkpoint: Checkpoint) -> Neighbors:
    n, found = len(order), Neighbors.empty(len(order), m)
    saved = checkpoint.load()
    done = len(saved["rows"]) if saved else 0
    if saved:
        found.rows[order[:done]], found.quanta[order[:done]] = saved["rows"], saved["quanta"]
    with Progress("nearest prompts", n, "prompt", done) as progress:
        for first in range(done, n, _BLOCK):
            rows = order[first : first + _BLOCK]
            block = search(rows)
            found.rows[rows], found.quanta[rows] = block.rows, block.quanta
            progress.update(len(rows))
            if checkpoint.due():
                known = order[: first + len(rows)]
                checkpoint.save({"rows": found.rows[known], "quanta": found.quanta[known]})
    return found


def _side_by_side(unit: Callable[[Rows, Neighbors], None], m: int) -> Search:
    """Return a search that has `unit` fill in the neighbors of _UNIT prompts at a time, on all cores."""

    def search(rows: Rows) -> Neighbors:
        found = Neighbors.empty(len(rows), m)
        units = [slice(a, a + _UNIT) for a in range(0, len(rows), _UNIT)]
        parts = [Neighbors(found.rows[u], found.quanta[u]) for u in units]
        with numpy_workers() as workers:
            list(workers.map(unit, [rows[u] for u in units], parts))
        return found

    return search


def tile_search(embedding: Embedding, m: int) -> Search:
    """Compare all pairs on the cores of this machine."""
    z, bias, exact = embedding.vectors, embedding.bias, for_loops(embedding.exact)

    def unit(rows: Rows, found: Neighbors) -> None:
        best = loops.no_best(bias[rows], m + _ROOM, embedding.exponential)
        # Always _UNIT rows: products of another shape round differently, and equal prompts would not tie.
        left, buffer = z[np.resize(rows, _UNIT)], np.empty(_UNIT * _WIDTH, dtype=np.float32)
        for a in range(0, len(z), _WIDTH):
            right = z[a : a + _WIDTH]
            product = np.matmul(left, right.T, out=buffer[: _UNIT * len(right)].reshape(_UNIT, -1))
            loops.keep_best(product, rows, a, bias, embedding.exponential, exact, m, best)
        loops.write_best(best, found.rows, found.quanta)

    return _side_by_side(unit, m)


def device_search(embedding: Embedding, m: int, device: str) -> Search:
    """Compare all pairs on a torch device."""
    z, bias = torch.from_numpy(embedding.vectors).to(device), torch.from_numpy(embedding.bias).to(device)
    pool = torch.arange(len(z), device=device)

    def keys_of(rows: torch.Tensor) -> torch.Tensor:
        best = torch.zeros((len(rows), 0), dtype=torch.int64, device=device)
        for columns in pool.split(_DEVICE_WIDTH):
            s = z[rows] @ z[columns].T + (bias[rows, None] + bias[columns])
            _correct(s, rows, columns, bias, embedding)
            w = torch.exp2(s.clamp(max=0)) if embedding.exponential else s.clamp(0, 1)
            quanta = (w * float(ONE)).long()
            quanta += 2 * (rows[:, None] == columns)  # the prompt itself before equally similar ones
            keys = torch.cat([best, torch.where(quanta > 0, (quanta << 32) | (_LOWEST - columns), 0)], dim=1)
            best = keys.topk(min(m, keys.shape[1]), dim=1).values
        return best

    def search(rows: Rows) -> Neighbors:
        with full_precision():
            keys = torch.cat([keys_of(part) for part in torch.from_numpy(rows).to(device).split(_DEVICE_UNIT)])
        quanta = (keys >> 32).clamp(max=int(ONE))
        columns = torch.where(quanta > 0, _LOWEST - (keys & _LOWEST), 0)
        return Neighbors(columns.int().cpu().numpy(), quanta.int().cpu().numpy())

    return search


def _correct(
    s: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor, embedding: Embedding
) -> None:
    """Replace the `s` of doubtful pairs, unless it already rules out a similarity."""
    exact = embedding.exact
    doubtful = (bias[rows, None] < exact.far) | (bias[columns] < exact.far) | (s > exact.close)
    at = (doubtful & (s > (-31 if embedding.exponential else 0))).nonzero(as_tuple=True)
    pairs = rows[at[0]].cpu().numpy(), columns[at[1]].cpu().numpy()
    found = exact_s_of_pairs(*pairs, embedding.exponential, for_loops(exact))
    s[at] = torch.from_numpy(found).to(s)


def cell_search(embedding: Embedding, m: int) -> tuple[Search, Rows]:
    """Compare prompts with those in nearby cells; also return the row order in which this is fastest."""
    import faiss

    n, d = embedding.vectors.shape
    index: Any = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, max(1, n // _CELL))
    index.cp.seed, index.cp.niter = 0, 5
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 39  # the fewest without a faiss warning
    index.train(embedding.vectors)
    index.add(embedding.vectors)
    index.nprobe = _PROBES
    # s = c_i + c_j - d^2 / 2; for the existing kernels, the most similar prompts are the nearest.
    half_norms = 0.5 * np.einsum("nd,nd->n", embedding.vectors, embedding.vectors, dtype=np.float64)
    offset, exact = (half_norms + embedding.bias).astype(np.float32), for_loops(embedding.exact)

    def unit(rows: Rows, found: Neighbors) -> None:
        faiss.omp_set_num_threads(1)  # one per thread of ours: faiss's own wait for the slowest on every call
        squared, columns = index.search(embedding.vectors[rows], m)
        loops.write_found(
            columns, squared, rows, offset, embedding.bias, embedding.exponential, exact, found.rows, found.quanta
        )

    lists = index.invlists
    cells = [faiss.rev_swig_ptr(lists.get_ids(c), lists.list_size(c)) for c in range(index.nlist) if lists.list_size(c)]
    return _side_by_side(unit, m), np.concatenate(cells)
