"""What a ranking saves of itself: whole or not at all, now and then, and never at the price of the ranking."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_pools import mixture

from aliquot.selection.greedy import checkpoint
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace, clear, digest
from aliquot.selection.greedy.facility_location import facility_location
from aliquot.selection.greedy.farthest_first import farthest_first
from aliquot.selection.greedy.information import information_gain
from aliquot.selection.greedy.modes import Distributed, Sparse, Stochastic
from aliquot.selection.greedy.ragged import Blocks
from aliquot.selection.kernels import RBF
from aliquot.types import Selection

N = 120
START = Selection(np.array([50, 3]), np.zeros(2))
NONE = Selection.none()


def by_facility_location(x: np.ndarray, start: Selection, workspace: Workspace) -> np.ndarray:
    return facility_location(RBF().embed(x), 40, start=start, workspace=workspace).indices


def by_neighbors(x: np.ndarray, start: Selection, workspace: Workspace) -> np.ndarray:
    return Sparse(5).maximize(RBF().embed(x), start, 40, workspace).indices


def by_samples(x: np.ndarray, start: Selection, workspace: Workspace) -> np.ndarray:
    return Stochastic(0.1).maximize(RBF().embed(x), start, 40, workspace).indices


def in_parts(x: np.ndarray, start: Selection, workspace: Workspace) -> np.ndarray:
    return Distributed(3).maximize(RBF().embed(x), start, 20, workspace).indices


def by_distance(x: np.ndarray, start: Selection, workspace: Workspace) -> np.ndarray:
    return farthest_first(x, start.indices if len(start) else np.array([50]), 40, workspace)[0]


def by_information(x: np.ndarray, start: Selection, workspace: Workspace) -> np.ndarray:
    blocks = Blocks(x, np.arange(N), np.ones(N, dtype=np.int64), np.ones(N))
    return information_gain(blocks, start, 40, workspace, "test").indices


RANKINGS = [by_facility_location, by_neighbors, by_samples, in_parts, by_distance, by_information]


def test_the_last_save_is_read_back(tmp_path: Path) -> None:
    saved = Checkpoint(tmp_path / "ranking")
    assert saved.load() == {}
    for picked in (3, 5):
        saved.save({"indices": np.arange(picked)})
    np.testing.assert_array_equal(Checkpoint(tmp_path / "ranking").load()["indices"], np.arange(5))
    assert [path.name for path in (tmp_path / "ranking").iterdir()] == ["checkpoint.npz"]


def test_what_another_task_saved_is_not_loaded(tmp_path: Path) -> None:
    Checkpoint(tmp_path, np.arange(3), 5).save({"indices": np.arange(3)})
    assert Checkpoint(tmp_path, np.arange(3), 6).load() == {}
    assert Checkpoint(tmp_path, np.arange(3), 5).load().keys() == {"indices"}


def test_digests_differ_where_anything_does() -> None:
    x = np.arange(6, dtype=np.float32)
    embedding, other = (RBF().embed(mixture(N, seed=seed)) for seed in (0, 1))
    tasks = [(x,), (x.reshape(2, 3),), (x.view(np.int32),), (x + 1,), (x, None), (None, x), (x, x), (5,), (5.5,)]
    tasks += [(embedding,), (other,), (embedding, None), (embedding.vectors, embedding.bias)]
    assert len({digest(*task) for task in tasks}) == len(tasks)
    assert digest(np.asfortranarray(embedding.vectors)) == digest(embedding.vectors)
    assert digest(embedding) == digest(RBF().embed(mixture(N)))


@pytest.mark.slow
@pytest.mark.parametrize("ranking", RANKINGS)
def test_no_ranking_goes_on_from_what_another_left_in_its_place(
    ranking: Callable[[np.ndarray, Selection, Workspace], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "due", lambda self: self._path is not None)
    one, two = mixture(N, seed=0), mixture(N, seed=1)
    for x, start in ((one, NONE), (two, NONE), (two, START), (two, NONE)):
        np.testing.assert_array_equal(ranking(x, start, Workspace(tmp_path)), ranking(x, start, Workspace()))


def test_what_is_kept_outlives_the_ranking_and_stands_in_where_nothing_else_is_saved(tmp_path: Path) -> None:
    saved = Checkpoint(tmp_path, np.arange(3))
    saved.keep({"indices": np.arange(2)})
    saved.save({"indices": np.arange(5)})
    Checkpoint(tmp_path / "second_round").save({"indices": np.arange(9)})
    assert len(saved.load()["indices"]) == 5
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.npz"]
    assert len(saved.load()["indices"]) == 2
    assert Checkpoint(tmp_path, np.arange(4)).load() == {}
    clear(tmp_path / "nowhere")


def test_without_a_directory_nothing_is_kept() -> None:
    saved = Checkpoint(None)
    saved.save({"indices": np.arange(3)})
    saved.keep({"indices": np.arange(3)})
    assert saved.load() == {}
    assert not saved.due()


def test_is_due_again_after_a_while_longer_where_saving_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    saved = Checkpoint(tmp_path)
    assert not saved.due()
    clock[0] = checkpoint._SECONDS
    assert saved.due()

    def slow(file: object, **arrays: np.ndarray) -> None:
        clock[0] += 10

    monkeypatch.setattr(np, "savez", slow)
    saved.save({})
    clock[0] += 199
    assert not saved.due()
    clock[0] += 1
    assert saved.due()


def test_a_full_disk_leaves_the_last_save_and_ends_nothing(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = Checkpoint(small_disk)
    saved.save({"indices": np.arange(10)})
    with caplog.at_level(logging.WARNING, "aliquot"):
        saved.save({"indices": np.arange(100_000)})
    assert "No space left" in caplog.text
    np.testing.assert_array_equal(saved.load()["indices"], np.arange(10))
