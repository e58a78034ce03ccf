"""The Select stage goes on from what its directory holds: a shallower ranking, or one that was cut off."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from aliquot.pools.spec import JsonlPool
from aliquot.runtime.trainer import TrainerSpec
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.strategy import Greedy
from aliquot.stages import Prepare, Select
from aliquot.store.store import Store
from aliquot.types import Pool, Scores, Selection

calls: list[tuple[int, int]] = []
killed_at: list[int] = []


@dataclass(frozen=True)
class Counting(Greedy):
    """Picks rows in order, one a turn, and notes from where to where it was asked to go."""

    requires: ClassVar[frozenset[str]] = frozenset()
    nested: ClassVar[bool] = True

    def extend(self, pool: Pool, scores: Scores | None, start: Selection, k: int, workspace: Workspace) -> Selection:
        checkpoint = Checkpoint(workspace.directory)
        first = max(len(start), int(checkpoint.load().get("picked", 0)))
        calls.append((first, k))
        for row in range(first, k):
            if row in killed_at:
                checkpoint.save({"picked": np.array(row)})
                raise KeyboardInterrupt
        return Selection(np.arange(k), np.zeros(k))


@pytest.fixture
def select(tmp_path: Path):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(f'{{"prompt": "prompt {i}"}}\n' for i in range(9)))
    calls.clear()
    killed_at.clear()
    return lambda budget: Select(Prepare(JsonlPool(str(path))), Counting(), None, budget, TrainerSpec("cpu"))


def test_a_deeper_budget_goes_on_from_the_ranking_there(select, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert len(store.get(select(3))) == 3
    assert len(store.get(select(7))) == 7
    assert len(store.get(select(5))) == 5
    assert calls == [(0, 3), (3, 7)]


def test_seconds_of_a_deeper_ranking_hold_those_of_the_one_it_goes_on_from(select, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.ensure(select(3))
    path = store.directory(select(3)) / "stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 100.0}))
    store.ensure(select(7))
    assert json.loads(path.read_text())["seconds"] >= 100


def test_a_result_that_somebody_removed_is_named_with_the_folder_to_delete(select, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.ensure(select(3))
    (store.directory(select(3)) / "selection.npz").unlink()
    with pytest.raises(ValueError, match=r"selection\.npz is gone, .* delete"):
        store.get(select(3))


def test_a_ranking_that_was_cut_off_goes_on_and_leaves_nothing_behind(select, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    killed_at.append(4)
    with pytest.raises(KeyboardInterrupt):
        store.ensure(select(6))
    killed_at.clear()
    assert len(store.get(select(6))) == 6
    assert calls == [(0, 6), (4, 6)]
    assert sorted(path.name for path in store.directory(select(6)).iterdir()) == ["selection.npz", "stage.json"]
