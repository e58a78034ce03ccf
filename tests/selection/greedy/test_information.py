"""The maximiser against the log-determinant itself, in float64 and from scratch for every candidate."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aliquot.selection.greedy import information, workers
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.information import information_gain
from aliquot.selection.greedy.ragged import Blocks, log_det, rounding
from aliquot.types import Selection


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return request.param


@pytest.fixture
def many_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make fronts and live sets so small that even small pools take many rounds."""
    monkeypatch.setattr(information, "_FRONT", 24)
    monkeypatch.setattr(information, "_LIVE", 12)
    monkeypatch.setattr(information, "_PART", 50)


def make_blocks(lengths: np.ndarray, r: int, seed: int = 0, scale: float = 1.0) -> Blocks:
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(lengths.sum(), r)) * rng.gamma(1.0, size=(lengths.sum(), 1))).astype(np.float32)
    return Blocks(vectors, np.cumsum(lengths) - lengths, lengths, np.full(len(lengths), scale))


def ragged(n: int, longest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, longest + 1, size=n)


def grams(blocks: Blocks) -> np.ndarray:
    """X_i^T X_i of every block."""
    parts = [
        scale * blocks.vectors[start : start + length].astype(np.float64)
        for start, length, scale in zip(blocks.starts, blocks.lengths, blocks.scale, strict=True)
    ]
    return np.array([x.T @ x for x in parts])


def gains_from_scratch(gram: np.ndarray, chosen: list[int]) -> np.ndarray:
    """The gain of every block, -1 for those chosen."""
    a = np.eye(gram.shape[1]) + gram[chosen].sum(axis=0)
    gains = np.linalg.slogdet(a + gram)[1] - np.linalg.slogdet(a)[1]
    gains[chosen] = -1
    return gains


def brute_force(blocks: Blocks, k: int, chosen: tuple[int, ...] = ()) -> tuple[list[int], list[float]]:
    gram, picks, gains = grams(blocks), list(chosen), []
    while len(picks) < k:
        every = gains_from_scratch(gram, picks)
        picks.append(int(every.argmax()))
        gains.append(float(every.max()))
    return picks, gains


def choose(blocks: Blocks, k: int, start: Selection | None = None, workspace: Workspace | None = None) -> Selection:
    return information_gain(blocks, start or Selection.none(), k, workspace or Workspace(), "test")


def assert_identical(one: Selection, two: Selection) -> None:
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.gains, two.gains)


@pytest.mark.slow
@pytest.mark.usefixtures("many_rounds")
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(("longest", "r"), [(1, 6), (5, 8), (30, 4)], ids=["T=1", "ragged", "T>r"])
def test_equals_brute_force(longest: int, r: int, scale: float, device: str) -> None:
    blocks = make_blocks(ragged(60, longest), r, scale=scale)
    picks, gains = brute_force(blocks, 60)
    found = choose(blocks, 60, workspace=Workspace(device=device))
    assert found.indices.tolist() == picks
    np.testing.assert_allclose(found.gains, gains, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("many_rounds")
def test_long_rankings_stay_exact() -> None:
    blocks = make_blocks(ragged(500, 6), 16)
    found = choose(blocks, 500)
    assert (np.diff(found.gains) <= 1e-9).all()
    gram = grams(blocks)
    for depth in (1, 100, 500):
        f = np.linalg.slogdet(np.eye(16) + gram[found.indices[:depth]].sum(axis=0))[1]
        assert found.gains[:depth].sum() == pytest.approx(f, rel=1e-11)
    late = found.indices[:400].tolist()
    assert found.gains[400] == pytest.approx(gains_from_scratch(gram, late).max(), rel=1e-8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no prompt tells anything")
@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 25), longest=st.integers(1, 4), seed=st.integers(0, 999))
def test_every_pick_is_a_best_one_where_there_are_many(n: int, longest: int, seed: int) -> None:
    lengths = ragged(n, longest, seed)
    vectors = np.random.default_rng(seed).integers(-1, 2, size=(lengths.sum(), 2)).astype(np.float32)
    blocks = Blocks(vectors, np.cumsum(lengths) - lengths, lengths, np.ones(n))
    found, gram = choose(blocks, n), grams(blocks)
    for depth, (row, gain) in enumerate(zip(found.indices, found.gains, strict=True)):
        every = gains_from_scratch(gram, found.indices[:depth].tolist())
        assert gain == pytest.approx(every.max(), abs=1e-10)
        assert row == np.flatnonzero(every >= every.max() - 1e-11)[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of submodlib
def test_picks_what_submodlib_picks() -> None:
    submodlib = pytest.importorskip("submodlib", reason="submodlib-py is not installed")
    blocks = make_blocks(np.ones(150, dtype=np.int64), 12)
    kernel = (blocks.vectors @ blocks.vectors.T).astype(np.float64)
    function = submodlib.LogDeterminantFunction(n=150, mode="dense", lambdaVal=1.0, sijs=kernel)
    picks = function.maximize(100, "NaiveGreedy", stopIfZeroGain=False, show_progress=False)
    found = choose(blocks, 100)
    assert found.indices.tolist() == [row for row, _ in picks]
    np.testing.assert_allclose(found.gains, [gain for _, gain in picks], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("many_rounds")
@pytest.mark.parametrize("depth", [1, 60, 149])
def test_going_on_gives_what_is_chosen_at_once_bit_for_bit(depth: int) -> None:
    blocks = make_blocks(ragged(200, 5), 8)
    at_once = choose(blocks, 150)
    assert_identical(choose(blocks, 150, start=at_once.head(depth)), at_once)


def test_takes_account_of_what_others_chose() -> None:
    blocks = make_blocks(ragged(60, 5), 8)
    chosen = Selection(np.array([50, 3, 21]), np.array([9.0, 8.0, 7.0]))
    picks, gains = brute_force(blocks, 40, (50, 3, 21))
    found = choose(blocks, 40, start=chosen)
    assert found.indices.tolist() == picks
    np.testing.assert_allclose(found.gains, [9, 8, 7, *gains], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("many_rounds")
@pytest.mark.parametrize("cut_at", [1, 3, 9], ids=["first gains", "gains done", "picking"])
def test_goes_on_where_it_was_cut_off(cut_at: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = make_blocks(ragged(120, 5), 8)
    start = choose(blocks, 2)
    undisturbed = choose(blocks, 100, start)
    saves: list[int] = []
    screened: list[int] = []

    def save_and_be_killed(self: Checkpoint, arrays: Mapping[str, np.ndarray]) -> None:
        save(self, arrays)
        saves.append(len(arrays["indices"]))
        if len(saves) == cut_at:
            raise KeyboardInterrupt

    def screen(self: information._Greedy, rows: np.ndarray) -> None:
        screened.append(len(rows))
        screen_rows(self, rows)

    save, screen_rows = Checkpoint.save, information._Greedy._screen
    monkeypatch.setattr(Checkpoint, "save", save_and_be_killed)
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    monkeypatch.setattr(information._Greedy, "_screen", screen)
    with pytest.raises(KeyboardInterrupt):
        choose(blocks, 100, start, Workspace(tmp_path))
    in_first_run = sum(screened)
    assert_identical(choose(blocks, 100, start, Workspace(tmp_path)), undisturbed)
    in_both_runs = sum(screened)
    screened.clear()
    choose(blocks, 100, start)
    assert 0 < in_first_run < in_both_runs == sum(screened)  # nothing was done twice


def test_a_deeper_save_serves_a_shallower_ranking(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = make_blocks(ragged(60, 5), 8)
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    deep = choose(blocks, 40, workspace=Workspace(tmp_path))
    assert_identical(choose(blocks, 20, workspace=Workspace(tmp_path)), deep.head(20))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    busy: set[int] = set()

    def noting(self: Blocks, *arguments: Any) -> torch.Tensor:
        busy.add(threading.get_ident())
        assert torch.get_num_threads() == 1
        return gather(self, *arguments)

    gather = Blocks.gather
    blocks = make_blocks(ragged(1500, 8), 8)
    before = torch.get_num_threads()
    monkeypatch.setattr(workers, "num_cores", lambda: 1)
    one = choose(blocks, 200)
    monkeypatch.setattr(workers, "num_cores", lambda: threads)
    monkeypatch.setattr(Blocks, "gather", noting)
    several = choose(blocks, 200)
    assert torch.get_num_threads() == before
    assert_identical(one, several)
    assert len(busy) == threads + 1  # ours, and the one that picks


@pytest.mark.slow
@pytest.mark.usefixtures("many_rounds")
def test_of_equal_blocks_only_one_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 300
    vectors = np.tile(np.array([[3.0, 0.0], [0.0, 1.0]], dtype=np.float32), (n, 1))
    blocks = Blocks(vectors, 2 * np.arange(n), np.full(n, 2), np.ones(n))
    refreshed: list[int] = []
    refresh = information._Greedy._refresh
    monkeypatch.setattr(
        information._Greedy, "_refresh", lambda self, rows: (refreshed.append(len(rows)), refresh(self, rows))
    )
    found = choose(blocks, n)
    assert found.indices.tolist() == list(range(n))
    picks = np.arange(n)
    expected = np.log((1 + 9 * (picks + 1)) / (1 + 9 * picks)) + np.log((2 + picks) / (1 + picks))
    np.testing.assert_allclose(found.gains, expected, rtol=1e-9)
    assert sum(refreshed) <= 2 * n


@pytest.mark.slow
@pytest.mark.usefixtures("many_rounds")
def test_a_copy_of_the_pool_comes_behind_it_row_by_row() -> None:
    lengths = ragged(40, 4)
    one = make_blocks(lengths, 6)
    both = Blocks(one.vectors, np.tile(one.starts, 2), np.tile(lengths, 2), np.tile(one.scale, 2))
    found = choose(both, 80)
    position = np.argsort(found.indices)
    assert (position[:40] < position[40:]).all()
    assert found.indices.tolist() == brute_force(both, 80)[0]


@pytest.mark.filterwarnings("ignore:no prompt tells anything")
def test_zeros_gain_nothing_and_come_last_in_order() -> None:
    lengths = ragged(30, 4)
    blocks = make_blocks(lengths, 6)
    zero = [2, 7, 19]
    for row in zero:
        blocks.vectors[blocks.starts[row] : blocks.starts[row] + lengths[row]] = 0
    found = choose(blocks, 30)
    assert found.indices[-3:].tolist() == zero
    assert found.gains[-3:].tolist() == [0, 0, 0]
    blocks.vectors[:] = 0
    assert_identical(choose(blocks, 30), Selection(np.arange(30), np.zeros(30)))


@pytest.mark.parametrize("size", [1e3, 1e5, 3e7])
def test_very_long_vectors_leave_gains_finite(size: float) -> None:
    blocks = make_blocks(ragged(40, 4), 6)
    half = blocks.vectors[: len(blocks.vectors) // 2]
    half[:] = np.where(half < 0, -size, size)
    found = choose(blocks, 40)
    assert sorted(found.indices) == list(range(40))
    assert np.isfinite(found.gains).all()
    assert (found.gains >= 0).all()


@pytest.mark.filterwarnings("ignore:no prompt tells anything")
def test_gains_that_are_rounding_are_none() -> None:
    blocks = make_blocks(ragged(30, 4), 6, scale=1e-9)
    assert_identical(choose(blocks, 30), Selection(np.arange(30), np.zeros(30)))


def test_where_float32_is_too_narrow_it_says_so_and_float64_takes_singular_values() -> None:
    y = torch.full((1, 3, 4), 1e9, dtype=torch.float64)
    assert log_det(y.float()).isnan().all()
    assert float(log_det(y)[0]) == pytest.approx(np.log(12e18), rel=0.5)


@pytest.mark.parametrize("tokens", [1, 7, 32])
@pytest.mark.parametrize("shrunk", [1.0, 1e-5], ids=["first gains", "late gains"])
def test_rounding_in_float32_stays_below_its_bound(tokens: int, shrunk: float) -> None:
    """Late in a ranking X is long, but C has shrunk where it points: most of X C cancels."""
    rng = np.random.default_rng(tokens)
    directions = np.linalg.qr(rng.normal(size=(48, 48)))[0]
    scale = np.repeat([shrunk, 1.0], 24)
    factor = torch.from_numpy(directions * scale @ directions.T)
    x = torch.from_numpy((rng.normal(size=(200, tokens, 48)) / scale) @ directions.T)
    exact = log_det(x @ factor)
    narrow = x.float(), x.float() @ factor.float()
    bound = rounding(*narrow, float(torch.linalg.matrix_norm(factor)))
    assert ((log_det(narrow[1]) - exact).abs() <= bound).all()
    assert (bound <= 0.01 / shrunk * exact).all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [300, 600])
def test_of_more_ties_than_are_kept_up_to_date_the_lower_row_is_picked(n: int) -> None:
    one = np.ones(n, dtype=np.int64)
    blocks = Blocks(np.eye(n, dtype=np.float32), np.arange(n), one, np.ones(n))
    np.testing.assert_array_equal(choose(blocks, 8).indices, np.arange(8))


def test_vectors_too_long_for_float64_are_refused() -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    blocks = Blocks(vectors, np.arange(9), np.ones(9, dtype=np.int64), np.full(9, 1e9))
    with pytest.raises(ValueError, match=r"times sigma; beyond 1e\+08 float64 cannot rank gains; raise strategy.sigma"):
        information_gain(blocks, Selection.none(), 3, Workspace(), "x")


def test_only_tokens_that_are_read_count_as_long() -> None:
    vectors = np.ones((6, 4), dtype=np.float32)
    vectors[[1, 5]] = 1e12
    blocks = Blocks(vectors, np.array([0, 2]), np.array([1, 3]), np.ones(2))
    assert blocks.longest() == 2.0


def test_gains_that_are_all_rounding_are_warned_of() -> None:
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    blocks = Blocks(vectors, np.arange(9), np.ones(9, dtype=np.int64), np.full(9, 1e-8))
    with pytest.warns(UserWarning, match="no prompt tells anything"):
        selection = information_gain(blocks, Selection.none(), 3, Workspace(), "x")
    np.testing.assert_array_equal(selection.indices, [0, 1, 2])
