"""What was picked is what is in the store, and is measured as brute force measures it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.stats import entropy, spearmanr

from aliquot.experiment.record import RunRecord
from aliquot.pools.arrow import TableWriter
from aliquot.report.analysis.findings import Findings
from aliquot.report.analysis.study import Arm, Cell, Study
from aliquot.report.figures.study import draw
from aliquot.report.selections import from_store, measures
from aliquot.report.selections.from_store import look_at_picks
from aliquot.scoring.run import load_scores
from aliquot.selection.clustering import number_rows
from aliquot.selection.kernels import RBF
from aliquot.selection.strategies.random import Random
from aliquot.selection.strategies.uncertainty import Uncertainty
from aliquot.types import Pool
from extreme_pools import EXTREME, squared_distances

POOL, SCORE, N = "pool0", "score0", 600
RBF_FIELDS = {"type": "aliquot.selection.kernels.RBF", "version": 1, "gamma": 0.25, "unit": "median", "seed": 0}


class FakeStore:
    """The files that runs leave behind which choose prompts from a pool of clusters."""

    def __init__(self, root, num_prompts=N, dimensions=8, tasks=True, scores=True):
        self.root, self.cells, self.records = root, [], []
        rng = np.random.default_rng(5)
        self.labels = rng.choice(6, size=num_prompts, p=(0.4, 0.3, 0.15, 0.1, 0.04, 0.01))
        self.features = (rng.normal(size=(6, dimensions)) * 3)[self.labels] + rng.normal(size=(num_prompts, dimensions))
        self.features = self.features.astype(np.float32)
        self.features[7] = self.features[300]  # two prompts that look the same
        self.prompt_lengths = rng.integers(5, 90, num_prompts)
        self._write_pool(tasks)
        if scores:
            self._write_scores(rng, num_prompts)

    def _write_pool(self, tasks):
        folder = self.root / "pool" / POOL
        folder.mkdir(parents=True)
        with TableWriter(folder / "pool.arrow") as table:
            for row, label in enumerate(self.labels.tolist()):
                table.append(f"id{row}", f"prompt {row}", f"task{label}" if tasks else None)

    def _write_scores(self, rng, num_prompts):
        folder = self.root / "score" / SCORE
        folder.mkdir(parents=True)
        lengths = rng.integers(1, 9, num_prompts)
        arrays = {"features": self.features, "prompt_lengths": self.prompt_lengths, "token_lengths": lengths}
        arrays["top1"] = rng.uniform(0.5, 0.9, lengths.sum()).astype(np.float32)
        arrays["top2"] = (1 - arrays["top1"]) / 2
        arrays["entropy"] = rng.uniform(0, 2, lengths.sum()).astype(np.float32)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)

    def add(self, arm, budget, rows, depth=None, nested=True, kernel=None, score=None):
        """Add a run at a budget whose ranking holds these rows."""
        key = f"{arm}-{depth if nested else budget}"
        folder = self.root / "select" / key
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "selection.npz", indices=np.asarray(rows, dtype=np.int64), gains=np.zeros(len(rows)))
        fields = {"strategy": {"type": arm, "kernel": kernel}, "budget": None if nested else budget}
        fields["score"] = {"stage": "score", "key": score} if score else None
        upstream = [f"pool/{POOL}", *([f"score/{score}"] if score else [])]
        (folder / "stage.json").write_text(json.dumps({"fields": fields, "depth": len(rows), "upstream": upstream}))
        run = f"{arm}-{budget}"
        self.cells.append(Cell(Arm(arm, arm, {}), budget, ("0",), (run,), {}, 0.0))
        stages = [("pool", POOL, 1.0), ("select", key, 1.0)]
        self.records.append(RunRecord(run, arm, "pool", N, budget, 0, (), (), (), stages, ""))

    def study(self):
        return Study("a pool", {}, (), {}, self.cells, self.records)

    def look(self):
        return look_at_picks(self.root, self.study())


@pytest.fixture
def store(tmp_path):
    """Random, the longest prompts, and one whole cluster, at budgets of 50 and 200."""
    store = FakeStore(tmp_path)
    rng = np.random.default_rng(1)
    by_length, clustered = np.argsort(-store.prompt_lengths, kind="stable"), np.argsort(store.labels, kind="stable")
    order = rng.permutation(N)
    for budget in (50, 200):
        store.add("random", budget, order[:200], depth=200)
        store.add("longest", budget, by_length[:200], depth=200, score=SCORE)
        store.add("facility_location", budget, clustered[:200], depth=200, kernel=RBF_FIELDS, score=SCORE)
    store.chosen = {"random": order[:200], "longest": by_length[:200], "facility_location": clustered[:200]}
    return store


def test_all_that_is_said_of_the_picks_agrees_with_brute_force(store, monkeypatch):
    monkeypatch.setattr(from_store, "NUM_SAMPLED", 2 * N)  # no sampling: all prompts, all picks
    picks = store.look()
    assert (picks.budget, picks.num_prompts) == (200, N)
    assert [arm.name for arm in picks.arms] == ["facility_location", "longest", "random"]
    unit = np.median(pdist(store.features.astype(float)))
    pool, *arms = picks.summaries()
    assert pool.effective_tasks == pytest.approx(np.exp(entropy(np.bincount(store.labels))))
    assert pool.mean_length == pytest.approx(store.prompt_lengths.mean())
    for i, (arm, summary) in enumerate(zip(picks.arms, arms, strict=True)):
        rows = store.chosen[arm.name]
        counts = np.bincount(store.labels[rows], minlength=6)
        assert summary.num_tasks == (counts > 0).sum()
        assert summary.effective_tasks == pytest.approx(np.exp(entropy(counts)))
        assert dict(zip(picks.tasks.names, picks.tasks.picked[i], strict=True)) == {
            f"task{label}": count / 200 for label, count in enumerate(counts)
        }
        assert summary.mean_length == pytest.approx(store.prompt_lengths[rows].mean())
        distances = cdist(store.features.astype(float), store.features[rows].astype(float))
        assert summary.coverage == pytest.approx(distances.min(axis=1).mean() / unit, rel=0.1)
        assert summary.coverage / arms[0].coverage == pytest.approx(
            distances.min(axis=1).mean()
            / cdist(store.features.astype(float), store.features[store.chosen["facility_location"]].astype(float))
            .min(axis=1)
            .mean(),
            rel=1e-4,
        )
        others = distances[rows] + np.diag(np.full(200, np.inf))
        assert summary.redundancy / summary.coverage == pytest.approx(
            others.min(axis=1).mean() / distances.min(axis=1).mean(), rel=1e-4
        )
        in_both = set(rows.tolist()) & set(store.chosen["random"].tolist())
        either = set(rows.tolist()) | set(store.chosen["random"].tolist())
        assert summary.overlap == (None if arm.name == "random" else pytest.approx(len(in_both) / len(either)))
    assert picks.tasks.names[0] == f"task{np.bincount(store.labels).argmax()}"


def test_distances_agree_with_scipy_and_are_exactly_zero_where_features_are_the_same():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(900, 16)).astype(np.float32)
    features[1] = features[0]
    choices = [rng.permutation(900)[:size] for size in (1, 300, 700)]
    choices.append(np.array([0, 1, 2]))
    sample = rng.permutation(900)[:700]
    found = measures.distances_to_nearest(features, sample, choices)
    exact = cdist(features.astype(float), features.astype(float))
    for choice, distances in zip(choices, found, strict=True):
        np.testing.assert_allclose(distances, exact[np.ix_(sample, choice)].min(axis=1), atol=2e-3)
        assert (distances[np.isin(sample, choice)] == 0).all()
    within = measures.distances_within(features, choices[2], np.arange(700))
    np.fill_diagonal(exact, np.inf)
    np.testing.assert_allclose(within, exact[np.ix_(choices[2], choices[2])].min(axis=1), atol=2e-3)
    assert measures.distances_within(features, choices[3], np.arange(3))[:2].tolist() == [0, 0]


@pytest.mark.parametrize("pool", EXTREME)
def test_distances_are_those_of_float64_however_extreme_the_features(pool: str) -> None:
    x, rng = EXTREME[pool], np.random.default_rng(0)
    distances = np.sqrt(squared_distances(x))
    choices, sample = [rng.permutation(500)[:40], np.arange(30)], rng.permutation(500)[:100]
    found = measures.distances_to_nearest(x, sample, choices)
    for choice, nearest in zip(choices, found, strict=True):
        np.testing.assert_allclose(nearest, distances[np.ix_(sample, choice)].min(axis=1), rtol=1e-9)
    others = distances[np.ix_(choices[0], choices[0])] + np.where(np.eye(40) > 0, np.inf, 0)
    np.testing.assert_allclose(measures.distances_within(x, choices[0], np.arange(40)), others.min(axis=1), rtol=1e-9)
    assert measures.typical_distance(x, sample) > 0


def test_duplicates_are_counted_by_all_features():
    features = np.array([[0, 1], [-0.0, 1], [1, 0], [1, 1e-7], [1, 0]], dtype=np.float32)
    labels = number_rows(features)
    assert [labels[0] == labels[1], labels[2] == labels[4], labels[2] == labels[3]] == [True, True, False]
    assert measures.duplicate_share(labels, np.array([0, 1, 2, 3])) == 0.5
    assert measures.duplicate_share(labels, np.array([0, 2, 3])) == 0.0


def test_correlations_are_spearmans_of_what_strategies_order_by(store):
    found = store.look().correlations
    scores = load_scores(store.root / "score" / SCORE)
    pool = Pool("pool", [str(i) for i in range(N)], [str(i) for i in range(N)])
    uncertain = {"mean_entropy": ("entropy", "mean"), "max_entropy": ("entropy", "max")}
    uncertain |= {"least_confidence": ("confidence", "mean")}
    uncertain |= {"mean_margin": ("margin", "mean"), "min_margin": ("margin", "max")}
    values = {"prompt length": scores.prompt_lengths, "response length": scores.tokens.lengths}
    for name, (measure, reduction) in uncertain.items():
        ranking = Uncertainty(measure, reduction).select(pool, scores, N)
        values[name] = np.empty(N)
        values[name][ranking.indices] = ranking.gains
    assert set(found.names) == set(values)
    expected = spearmanr(np.column_stack([values[name] for name in found.names])).statistic
    np.testing.assert_allclose(found.matrix, expected, atol=1e-12)


def test_the_settings_of_a_kernel_lead_to_its_mean_similarity(store):
    embedding = RBF(gamma=0.25).embed(store.features)
    i, j = np.triu_indices(N, 1)
    assert store.look().similarity == {"facility_location": pytest.approx(embedding.similarity(i, j).mean(), rel=0.02)}


@pytest.mark.slow
def test_uncertainties_are_those_of_the_strategies_with_these_names(compose):
    from aliquot.config.create import create

    for name, measure in measures.UNCERTAINTIES.items():
        strategy = create(compose(f"strategy={name}"), "strategy")
        assert (strategy.measure, strategy.reduction, strategy.normalize, strategy.residualize) == (
            measure.measure,
            measure.reduction,
            measure.normalize,
            measure.residualize,
        )


def test_the_budget_is_the_largest_that_most_arms_can_be_looked_at_with(tmp_path):
    store = FakeStore(tmp_path, scores=False)
    rows = np.arange(N)
    store.add("deep", 300, rows[:300], depth=300)
    store.add("shallow", 120, rows[:120], depth=120)
    store.add("fixed", 100, rows[:100], nested=False)
    store.add("fixed", 300, rows[:300][::-1], nested=False)
    picks = store.look()
    assert (picks.budget, picks.left_out) == (100, ())
    assert (picks.overlap == 1).all()  # of deeper rankings, the first picks alone
    store.add("other", 300, rows[:300], nested=False)
    store.add("another", 300, rows[:300], nested=False)
    picks = store.look()
    assert (picks.budget, picks.left_out) == (300, ("shallow",))
    assert [arm.name for arm in picks.arms] == ["another", "deep", "fixed", "other"]
    (store.root / "select" / "another-300" / "stage.json").unlink()  # deleted
    (store.root / "select" / "other-300" / "selection.npz").unlink()  # half deleted
    assert [arm.name for arm in store.look().arms] == ["deep", "fixed"]


def test_the_sample_that_coverage_is_measured_on_is_not_what_random_picked(tmp_path, monkeypatch):
    store = FakeStore(tmp_path)
    monkeypatch.setattr(from_store, "NUM_SAMPLED", 100)
    pool = Pool("pool", [str(i) for i in range(N)], [str(i) for i in range(N)])
    store.add("random", 100, Random(seed=0).select(pool, None, 100).indices, depth=100)
    store.add("longest", 100, np.arange(100), depth=100, score=SCORE)
    picks = store.look()
    near = picks.nearness.coverage[[arm.name for arm in picks.arms].index("random")]
    assert 0.05 < (near == 0).mean() < 0.4  # a sixth of the pool was picked


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "scores"), [(True, False), (False, True), (False, False)])
def test_what_a_pool_or_its_runs_lack_is_absent_and_the_rest_is_drawn(tmp_path, tasks, scores):
    store = FakeStore(tmp_path, tasks=tasks, scores=scores)
    store.add("random", 30, np.arange(30), depth=30)
    store.add("longest", 30, np.arange(20, 50), depth=30, score=SCORE if scores else None)
    picks = store.look()
    assert (picks.tasks is not None, picks.lengths is not None, picks.map is not None) == (tasks, scores, scores)
    assert picks.overlap[0, 1] == 10 / 50
    drawn = {drawing.name.removeprefix("picks-") for drawing in draw(store.study(), Findings({}, (), (), ()), picks)}
    expected = {"overlap"} | ({"tasks", "summary"} if tasks else set())
    assert drawn == expected | ({"summary", "lengths", "map", "correlations"} if scores else set())


@pytest.mark.parametrize("dimensions", [1, 300])
def test_features_of_one_dimension_have_no_map_and_wide_ones_are_projected(tmp_path, dimensions):
    store = FakeStore(tmp_path, dimensions=dimensions)
    store.add("longest", 60, np.arange(60), depth=60, score=SCORE)
    picks = store.look()
    assert (picks.map is None) == (dimensions == 1)
    exact = cdist(store.features, store.features[:60]).min(axis=1).mean() / np.median(pdist(store.features))
    assert picks.nearness.coverage.mean() == pytest.approx(exact, rel=0.15)


@pytest.mark.slow
def test_a_single_pick_has_no_other_pick_to_be_near_to(tmp_path):
    store = FakeStore(tmp_path)
    store.add("longest", 1, [3], depth=1, score=SCORE)
    picks = store.look()
    assert (picks.budget, picks.nearness) == (1, None)
    assert draw(store.study(), Findings({}, (), (), ()), picks)


def test_without_runs_or_their_files_there_is_nothing_to_look_at(store):
    assert look_at_picks(store.root, Study("empty", {}, (), {}, (), ())) is None
    (store.root / "pool" / POOL / "pool.arrow").unlink()
    assert store.look() is None


@pytest.mark.slow
def test_the_map_and_all_else_are_the_same_when_looked_at_again(store, tmp_path):
    one, other = store.look(), store.look()
    for drawing, again in zip(*(draw(store.study(), Findings({}, (), (), ()), p) for p in (one, other)), strict=True):
        again.save(tmp_path / "again")
        drawing.svg()  # before it is saved, or after: the map has points that are pixels
        drawing.save(tmp_path / "first")
        assert drawing.svg() == again.svg()
        png = f"{drawing.name}.png"
        assert (tmp_path / "first" / png).read_bytes() == (tmp_path / "again" / png).read_bytes()
    assert len(one.map.pool) == N
