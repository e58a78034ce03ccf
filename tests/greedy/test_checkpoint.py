"""What a ranking saves of itself: whole or not at all, now and then, and never at the price of the ranking."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytest

from aliquot.greedy import checkpoint
from aliquot.greedy.checkpoint import Checkpoint


def test_the_last_save_is_read_back(tmp_path: Path) -> None:
    saved = Checkpoint(tmp_path / "ranking")
    assert saved.load() == {}
    for picked in (3, 5):
        saved.save({"indices": np.arange(picked)})
    np.testing.assert_array_equal(Checkpoint(tmp_path / "ranking").load()["indices"], np.arange(5))
    assert [path.name for path in (tmp_path / "ranking").iterdir()] == ["checkpoint.npz"]


def test_without_a_directory_nothing_is_kept() -> None:
    saved = Checkpoint(None)
    saved.save({"indices": np.arange(3)})
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
