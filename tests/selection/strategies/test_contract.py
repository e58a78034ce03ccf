"""What every strategy owes, whatever it does: found by glob, so that a new yaml is tested as soon as it exists."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from aliquot.config.create import create
from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.greedy.modes import Stochastic
from aliquot.selection.strategies.random import Random
from aliquot.selection.strategy import SIGNALS, Greedy, Strategy, rank
from aliquot.selection.upper_reference import UpperReference
from aliquot.types import Pool, Scores, Selection, Target, TokenFeatures, TokenStats

CONF = Path(__file__).parents[3] / "conf"
GROUP = CONF / "strategy"
CHOICES = sorted(path.stem for path in GROUP.glob("*.yaml"))
SETUPS = [(f"+strategy={name}",) for name in CHOICES]
SETUPS += [
    ("+strategy=facility_location", f"strategy/{part}={path.stem}")
    for part in ("kernel", "mode")
    for path in sorted((GROUP / part).glob("*.yaml"))
]


def configured(*overrides: str) -> Strategy | UpperReference:
    """Return the strategy as the command line would make it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=["+seed=0", *overrides])
    return create(config, "strategy")


CONFIGURED = {"-".join(setup): configured(*setup) for setup in SETUPS}
#: Upper references are no strategies; they have a test file of their own.
STRATEGIES = {name: made for name, made in CONFIGURED.items() if not isinstance(made, UpperReference)}


def those(choice: Callable[[Strategy], bool]) -> pytest.MarkDecorator:
    """Run a test for the strategies it is about, not for all."""
    chosen = {name: strategy for name, strategy in STRATEGIES.items() if choice(strategy)}
    return pytest.mark.parametrize("strategy", chosen.values(), ids=chosen.keys())


def draws(strategy: Strategy) -> bool:
    """Whether what it looks at is drawn by lot, so that equal rows may come in any order."""
    return isinstance(strategy, Random) or isinstance(getattr(strategy, "mode", None), Stochastic)


@pytest.fixture(params=STRATEGIES.values(), ids=STRATEGIES.keys())
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return request.param


def viewed(features: np.ndarray) -> dict[str, np.ndarray]:
    """Views by the names that presets read, all of them the same features: what holds for these holds for all."""
    return dict.fromkeys(("last", "mean", "weighted"), features)


def make_pool(n: int, seed: int = 0) -> tuple[Pool, Scores]:
    """A pool of n prompts with every signal."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, size=n)
    top1 = rng.uniform(0.3, 1.0, size=lengths.sum()).astype(np.float32)
    tokens = TokenStats(lengths, rng.gamma(1.0, size=len(top1)).astype(np.float32), top1, top1 * np.float32(0.3))
    prompts = ["word " * int(size) for size in rng.integers(1, 9, size=n)]
    features = rng.normal(size=(n, 5)).astype(np.float32)
    token_features = TokenFeatures(lengths, rng.normal(size=(len(top1), 4)).astype(np.float32))
    tasks = [f"task {i}" for i in rng.integers(3, size=n)]
    pool = Pool("test", [str(i) for i in range(n)], prompts, tasks)
    lengths_of_prompts = np.array([len(p) for p in prompts])
    return pool, Scores(features, lengths_of_prompts, tokens, token_features, viewed(features), make_target())


def make_target() -> Target:
    """Four prompts of the kind that the model will be asked."""
    features = np.random.default_rng(7).normal(size=(4, 5)).astype(np.float32)
    names = [str(i) for i in range(4)]
    signals = Scores(features, np.ones(4, dtype=np.int64), views=viewed(features))
    return Target(Pool("target", names, names, ["task 0", "task 1", "task 0", "task 0"]), signals)


def with_features(scores: Scores, features: np.ndarray) -> Scores:
    return dataclasses.replace(scores, features=features, views=viewed(features))


def twice(pool: Pool, scores: Scores) -> tuple[Pool, Scores]:
    """The pool followed by an exact copy of itself."""
    tokens = scores.tokens
    assert tokens is not None and pool.tasks is not None and scores.token_features is not None
    doubled = TokenStats(*(np.tile(a, 2) for a in (tokens.lengths, tokens.entropy, tokens.top1, tokens.top2)))
    ids = [*pool.ids, *(f"copy of {i}" for i in pool.ids)]
    features = np.tile(scores.features, (2, 1))
    return (
        Pool(pool.name, ids, [*pool.prompts] * 2, [*pool.tasks] * 2),
        Scores(
            features,
            np.tile(scores.prompt_lengths, 2),
            doubled,
            TokenFeatures(np.tile(tokens.lengths, 2), np.tile(scores.token_features.vectors, (2, 1))),
            viewed(features),
            scores.target,
        ),
    )


def test_every_yaml_opens_with_a_line_that_describes_the_choice() -> None:
    for path in GROUP.rglob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and len(first) > 20, path


def test_is_a_frozen_dataclass_that_says_what_it_needs(strategy: Strategy) -> None:
    assert isinstance(strategy, Strategy)
    assert dataclasses.is_dataclass(strategy)
    assert type(strategy).__dataclass_params__.frozen  # pyright: ignore
    assert strategy.requires <= frozenset(SIGNALS)
    assert isinstance(strategy.nested, bool)
    assert hash(strategy) == hash(dataclasses.replace(strategy))  # pyright: ignore


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 17, 40])
def test_picks_k_distinct_rows_with_finite_gains(strategy: Strategy, k: int) -> None:
    pool, scores = make_pool(40)
    selection = rank(strategy, pool, scores, k)
    assert len(set(selection.indices.tolist())) == k
    assert selection.indices.dtype == np.int64 and selection.gains.dtype == np.float64
    assert np.isfinite(selection.gains).all()


def test_a_pool_of_one_prompt_works(strategy: Strategy) -> None:
    assert rank(strategy, *make_pool(1), k=1).indices.tolist() == [0]


@pytest.mark.slow
def test_the_same_inputs_give_the_same_selection_bit_for_bit(strategy: Strategy) -> None:
    pool, scores = make_pool(300)
    one, two = (rank(strategy, pool, scores, 100) for _ in range(2))
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.gains, two.gains)


@pytest.mark.slow
@those(lambda strategy: "features" in strategy.requires)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_features_of_another_precision_are_taken_as_float32(strategy: Strategy, dtype: type) -> None:
    pool, scores = make_pool(60)
    narrow = scores.features.astype(np.float16)
    expected = rank(strategy, pool, with_features(scores, narrow.astype(np.float32)), 20)
    found = rank(strategy, pool, with_features(scores, narrow.astype(dtype)), 20)
    np.testing.assert_array_equal(found.indices, expected.indices)


@pytest.mark.slow
@those(lambda strategy: strategy.nested)
def test_nested_means_that_a_smaller_budget_is_a_prefix(strategy: Strategy) -> None:
    pool, scores = make_pool(200)
    whole = rank(strategy, pool, scores, 200)
    for k in (1, 2, 63, 150):
        np.testing.assert_array_equal(rank(strategy, pool, scores, k).indices, whole.indices[:k])


@pytest.mark.slow
@those(lambda strategy: strategy.nested)
def test_going_on_from_a_shallower_ranking_gives_the_ranking_at_once(strategy: Strategy) -> None:
    pool, scores = make_pool(300)
    at_once = rank(strategy, pool, scores, 200)
    for depth in (1, 60, 199):
        extended = rank(strategy, pool, scores, 200, start=rank(strategy, pool, scores, depth))
        np.testing.assert_array_equal(extended.indices, at_once.indices)
        np.testing.assert_array_equal(extended.gains, at_once.gains)


@pytest.mark.slow
@pytest.mark.parametrize("k", [3, 4, 30, 60])
def test_prompts_chosen_before_stay_and_come_first(strategy: Strategy, k: int) -> None:
    pool, scores = make_pool(60)
    chosen = Selection(np.array([50, 3, 21]), np.array([3.0, 2.0, 1.0]))
    selection = rank(strategy, pool, scores, k, start=chosen)
    np.testing.assert_array_equal(selection.indices[:3], chosen.indices)
    np.testing.assert_array_equal(selection.gains[:3], chosen.gains)
    assert len(set(selection.indices.tolist())) == k


@pytest.mark.parametrize("rows", [[3, 3], [7000], [-1]])
def test_rows_chosen_before_that_cannot_be_are_refused(strategy: Strategy, rows: list[int]) -> None:
    pool, scores = make_pool(60)
    with pytest.raises(ValueError, match=r"not rows of pool 'test' \(0\.\.59\) and \d come twice"):
        rank(strategy, pool, scores, 10, start=Selection(np.array(rows), np.zeros(len(rows))))


@pytest.mark.slow
@those(lambda strategy: isinstance(strategy, Greedy) and bool({"features", "token_features"} & strategy.requires))
def test_goes_on_where_a_ranking_was_cut_off(
    strategy: Strategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, scores = make_pool(300)
    expected = rank(strategy, pool, scores, 200)
    saves = []

    def save_and_be_killed(self: Checkpoint, arrays: Mapping[str, np.ndarray]) -> None:
        save(self, arrays)
        saves.append(arrays)
        if len(saves) in (1, 2, 5):
            raise KeyboardInterrupt

    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", save_and_be_killed)
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    for _ in range(4):
        with suppress(KeyboardInterrupt):
            selection = rank(strategy, pool, scores, 200, workspace=Workspace(tmp_path))
    assert saves, "it never saves itself"
    np.testing.assert_array_equal(selection.indices, expected.indices)
    np.testing.assert_array_equal(selection.gains, expected.gains)


@pytest.mark.slow
@those(lambda strategy: not draws(strategy))
def test_ties_go_to_the_lower_row(strategy: Strategy) -> None:
    n = 150
    pool, scores = twice(*make_pool(n))
    order = rank(strategy, pool, scores, 2 * n).indices
    position = np.argsort(order)
    assert (position[:n] < position[n:]).all()


@those(lambda strategy: bool(strategy.requires) and not draws(strategy))
def test_equal_rows_only_are_taken_in_order(strategy: Strategy) -> None:
    n = 30
    pool, one = make_pool(1)
    tokens = one.tokens
    assert tokens is not None and one.token_features is not None
    same = TokenStats(*(np.tile(a, n) for a in (tokens.lengths, tokens.entropy, tokens.top1, tokens.top2)))
    pool = Pool("same", [str(i) for i in range(n)], ["x"] * n, ["t"] * n)
    vectors, features = np.tile(one.token_features.vectors, (n, 1)), np.tile(one.features, (n, 1))
    token_features = TokenFeatures(same.lengths, vectors)
    target = dataclasses.replace(make_target(), scores=with_features(make_target().scores, features[:4]))
    scores = Scores(features, np.ones(n, np.int64), same, token_features, viewed(features), target)
    with pytest.warns(UserWarning, match="degenerate") if hasattr(strategy, "kernel") else nullcontext():  # all alike
        order = rank(strategy, pool, scores, n).indices
    rest = order[1:]  # the first of equal rows may be drawn
    assert (np.diff(rest) > 0).all()


@those(lambda strategy: bool(strategy.requires - {"tasks"}))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_signals_that_are_not_finite_are_refused_by_row(strategy: Strategy, bad: float) -> None:
    pool, scores = make_pool(20)
    assert scores.tokens is not None
    if "features" in strategy.requires:
        scores.features[[3, 7], 1] = bad
    elif "token_features" in strategy.requires:
        assert scores.token_features is not None
        scores.token_features.vectors[scores.token_features.starts[[3, 7]], 1] = bad
    else:
        scores.tokens.entropy[scores.tokens.starts[[3, 7]]] = bad
    with pytest.raises(ValueError, match="rows 3, 7"):
        rank(strategy, pool, scores, 5)


@those(lambda strategy: "features" in strategy.requires)
def test_features_too_large_to_square_are_refused_by_row(strategy: Strategy) -> None:
    pool, scores = make_pool(20)
    wide = scores.features.astype(np.float64)
    wide[[3, 7], 1] = [1e16, 1e300]
    with pytest.raises(ValueError, match="rows 3, 7"):
        rank(strategy, pool, with_features(scores, wide), 5)


def test_missing_signals_are_named(strategy: Strategy) -> None:
    if not strategy.requires - {"tasks"}:
        assert len(rank(strategy, make_pool(9)[0], None, 3)) == 3
        return
    with pytest.raises(ValueError, match="needs"):
        rank(strategy, make_pool(9)[0], None, 3)


@pytest.mark.parametrize("k", [0, 10])
def test_a_budget_outside_the_pool_is_refused(strategy: Strategy, k: int) -> None:
    with pytest.raises(ValueError, match=r"outside 1\.\.9"):
        rank(strategy, *make_pool(9), k)


@those(lambda strategy: "target" in strategy.requires)
def test_a_target_is_needed_and_must_be_finite(strategy: Strategy) -> None:
    pool, scores = make_pool(9)
    with pytest.raises(ValueError, match="needs 'target'"):
        rank(strategy, pool, dataclasses.replace(scores, target=None), 3)
    features = make_target().scores.features.copy()
    features[2, 0] = np.nan
    target = dataclasses.replace(make_target(), scores=with_features(make_target().scores, features))
    with pytest.raises(ValueError, match=r"target features of 1 of 4 prompts .*rows 2"):
        rank(strategy, pool, dataclasses.replace(scores, target=target), 3)
