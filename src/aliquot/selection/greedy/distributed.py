"""Two-round greedy (GreeDi): exact greedy inside each part of the pool, then among the picks from the parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.facility_location import facility_location
from aliquot.selection.kernels import Embedding
from aliquot.types import Selection


def greedy_in_part(embedding: Embedding, rows: Int64[np.ndarray, " m"], k: int, workspace: Workspace) -> Selection:
    """Select the k of `rows`, or all if there are fewer, that cover these rows best; returned as rows of the pool."""
    if len(rows) == 0:
        return Selection.none()
    chosen = facility_location(embedding.take(rows), min(k, len(rows)), workspace=workspace)
    return Selection(rows[chosen.indices], chosen.gains)


def two_rounds(
    embedding: Embedding,
    parts: Sequence[Int64[np.ndarray, " m"]],
    start: Selection,
    k: int,
    workspace: Workspace,
) -> Selection:
    """Run both rounds here, one part after the other; skip parts whose result is in the workspace.

    Args:
        embedding: the features as a kernel sees them.
        parts: the rows of each part.
        start: rows selected earlier, which stay and come first; the first round ignores them.
        k: rows to select, including those of `start`.
        workspace: where finished parts and the current ranking are saved.
    """
    checkpoint = Checkpoint(workspace.directory, embedding, k, *parts)
    chosen = checkpoint.load() | _given(workspace).load()
    for part, rows in enumerate(parts):
        if f"part_{part}" not in chosen:
            chosen[f"part_{part}"] = greedy_in_part(embedding, rows, k, _below(workspace, f"part_{part}")).indices
            checkpoint.save(chosen)
    candidates = np.concatenate([chosen[f"part_{part}"] for part in range(len(parts))])
    return facility_location(
        embedding, k, start=start, candidates=candidates, workspace=_below(workspace, "second_round")
    )


def give_parts(chosen: Sequence[Selection], workspace: Workspace) -> None:
    """Store picks made elsewhere from each part in the workspace, for `two_rounds` to find."""
    _given(workspace).save({f"part_{part}": picks.indices for part, picks in enumerate(chosen)})


def _given(workspace: Workspace) -> Checkpoint:
    """Return where `give_parts` stores picks made elsewhere; the caller ensures that they belong to the task."""
    return Checkpoint(_below(workspace, "given").directory)


def _below(workspace: Workspace, name: str) -> Workspace:
    folder = None if workspace.directory is None else workspace.directory / name
    return Workspace(folder, workspace.device)
