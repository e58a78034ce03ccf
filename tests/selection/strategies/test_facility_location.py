"""The strategy, its configuration and its stages; the maximisers themselves are tested in tests/selection/greedy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from aliquot.config.create import create
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.spec import Scorer
from aliquot.selection.greedy.modes import Distributed, Exact, Mode, Sparse, Stochastic
from aliquot.selection.kernels import RBF, Cosine
from aliquot.selection.strategies.facility_location import FacilityLocation
from aliquot.selection.strategy import rank
from aliquot.stages import Select
from aliquot.store.store import OnMetrics, Stage, Store
from aliquot.types import Pool, Scores

CONF = Path(__file__).parents[3] / "conf"


def make_pool(x: np.ndarray) -> tuple[Pool, Scores]:
    n = len(x)
    pool = Pool("test", [str(i) for i in range(n)], ["x"] * n)
    return pool, Scores(x.astype(np.float32), np.ones(n, dtype=np.int64))


@pytest.mark.parametrize(
    ("overrides", "kernel"),
    [
        ([], RBF()),
        (["strategy.kernel.gamma=0.1", "strategy.kernel.unit=absolute"], RBF(0.1, "absolute")),
        (["strategy/kernel=cosine"], Cosine()),
    ],
)
def test_the_kernel_is_chosen_on_the_command_line(overrides: list[str], kernel: RBF | Cosine) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=["+strategy=facility_location", *overrides])
    assert create(config, "strategy") == FacilityLocation(kernel)


@pytest.mark.parametrize(
    ("overrides", "mode", "nested"),
    [
        ([], Exact(), True),
        (["strategy/mode=exact"], Exact(), True),
        (["strategy/mode=sparse", "strategy.mode.m=32"], Sparse(32), True),
        (["strategy/mode=sparse", "strategy.mode.neighbors=approximate"], Sparse(64, "approximate"), True),
        (["strategy/mode=stochastic", "strategy.mode.eps=0.1"], Stochastic(0.1, seed=7), False),
        (["strategy/mode=distributed", "strategy.mode.parts=8"], Distributed(8, seed=7), False),
    ],
)
def test_the_mode_is_chosen_on_the_command_line(overrides: list[str], mode: Mode, nested: bool) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=["+seed=7", "+strategy=facility_location", *overrides])
    strategy = create(config, "strategy")
    assert strategy == FacilityLocation(RBF(), mode)
    assert strategy.nested == nested


def test_approximate_modes_log_how_near_to_exact_they_come_and_why_they_may_not_suit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool, scores = make_pool(np.random.default_rng(0).normal(size=(400, 8)))
    caplog.set_level("INFO", logger="aliquot")
    rank(FacilityLocation(RBF(), Exact()), pool, scores, 40)
    assert not caplog.messages
    rank(FacilityLocation(RBF(), Sparse(32)), pool, scores, 40)
    objection, report = caplog.messages
    assert objection.startswith("m=32 neighbors are too few to choose 40 of 400")
    assert report.startswith("Sparse(m=32, neighbors='exact'): f = ") and "recovers 0." in report


def test_one_prompt_of_each_cluster_comes_first_the_largest_cluster_before_the_others() -> None:
    rng = np.random.default_rng(0)
    centers = 10 * np.eye(3)
    cluster = np.repeat([0, 1, 2], [10, 40, 20])
    x = centers[cluster] + 0.1 * rng.normal(size=(70, 3))
    selection = rank(FacilityLocation(RBF(0.05)), *make_pool(x), k=3)
    assert cluster[selection.indices].tolist() == [1, 2, 0]
    np.testing.assert_allclose(selection.gains, [40, 20, 10], rtol=0.02)


def test_a_degenerate_width_warns_and_names_the_remedy() -> None:
    x = np.random.default_rng(0).normal(size=(200, 16))
    with pytest.warns(UserWarning, match=r"degenerate kernel.*try another strategy\.kernel\.gamma"):
        rank(FacilityLocation(RBF(1e-3)), *make_pool(x), k=5)


@dataclass(frozen=True)
class Listed(Stage[Pool]):
    """A pool of which only the length matters."""

    name: ClassVar[str] = "listed"
    n: int

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        (directory / "built").touch()

    def load(self, directory: Path) -> Pool:
        return Pool("listed", [str(i) for i in range(self.n)], ["x"] * self.n)


@dataclass(frozen=True)
class Given(Stage[Scores]):
    """Scores with random features."""

    name: ClassVar[str] = "given"
    scorer: ClassVar[Scorer] = Scorer(position="last")
    n: int

    def only(self, strategy: object) -> Stage[Scores]:
        return self

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        (directory / "built").touch()

    def load(self, directory: Path) -> Scores:
        return make_pool(np.random.default_rng(0).normal(size=(self.n, 6)))[1]


def select(mode: Mode, budget: int) -> Select:
    return Select(Listed(200), FacilityLocation(RBF(), mode), Given(200), budget, TrainerSpec("cpu"))  # pyright: ignore


@pytest.mark.slow
def test_the_parts_of_a_distributed_selection_are_stages_and_lead_to_the_same_picks(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), select(Distributed(4, seed=1), 20)
    parts = stage.parts()
    assert len({part.key for part in parts}) == 4
    assert stage.upstream() == [stage.pool, stage.score, *parts]
    for part in reversed(parts):  # in any order, by anybody
        store.ensure(part)
    built = {part.key: store.record(part) for part in parts}
    found, expected = store.get(stage), rank(stage.strategy, Listed(200).load(tmp_path), Given(200).load(tmp_path), 20)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.gains, expected.gains)
    assert {part.key: store.record(part) for part in parts} == built
    chosen = np.concatenate([store.get(part).indices for part in parts])
    assert len(chosen) == 80 and np.isin(found.indices, chosen).all()


def test_the_first_round_is_not_run_again_inside_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, stage = Store(tmp_path), select(Distributed(4), 20)
    for part in stage.parts():
        store.ensure(part)
    monkeypatch.setattr(
        "aliquot.selection.greedy.approximation.describe", lambda *_: ""
    )  # which runs both rounds on a sample
    monkeypatch.delattr("aliquot.selection.greedy.distributed.greedy_in_part")
    assert len(store.get(stage)) == 20


def test_only_the_key_of_a_mode_that_is_not_nested_holds_the_budget() -> None:
    for mode, nested in ((Exact(), True), (Sparse(), True), (Stochastic(), False), (Distributed(), False)):
        assert (select(mode, 10).key == select(mode, 20).key) == nested
        assert bool(select(mode, 10).parts()) == isinstance(mode, Distributed)
    assert select(Distributed(1), 10).parts() == []


@pytest.mark.slow
def test_specs_are_cheap_to_import() -> None:
    strategies = "aliquot.selection.strategies.facility_location, aliquot.selection.strategies.k_center"
    code = f"import sys, {strategies}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numba", "transformers"} & set(found)
