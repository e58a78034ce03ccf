"""Upper references: their orders by brute force, and that no strategy is given what they read."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest

from aliquot import types
from aliquot.config.create import create
from aliquot.config.schema import choices_of
from aliquot.selection.strategies.ifd import Ifd
from aliquot.selection.strategies.learnability import Learnability
from aliquot.selection.strategies.longest import Longest
from aliquot.selection.strategies.wrong_answers import WrongAnswers
from aliquot.selection.strategy import Greedy, Strategy
from aliquot.selection.upper_reference import UpperReference, rank_with_responses
from aliquot.types import Pool, ResponseSignals, Selection

ALL = (Ifd(uses_response=True), WrongAnswers(uses_response=True, seed=3), Learnability(uses_response=True))
FILES = sorted(file.stem for file in choices_of("strategy").glob("*.yaml") if "uses_response" in file.read_text())
each = pytest.mark.parametrize("reference", ALL, ids=lambda reference: type(reference).__name__)


def make_pool(n: int) -> Pool:
    return Pool("test", [str(i) for i in range(n)], [f"prompt {i}" for i in range(n)])


def draw(n: int, seed: int = 0) -> ResponseSignals:
    """Losses with many ties, some ratios above 1, at 1, and with a certain response."""
    rng = np.random.default_rng(seed)
    alone = rng.integers(0, 4, size=n) / 2
    return ResponseSignals(rng.integers(0, 5, size=n) / 2, alone, rng.random(n) < 0.4)


def by_selection(best: typing.Callable[[int], tuple], n: int) -> list[int]:
    """Take the row with the smallest tuple, again and again; the lower of two equal ones."""
    left, order = list(range(n)), []
    while left:
        first = left[0]
        for row in left[1:]:
            if best(row) < best(first):
                first = row
        order.append(first)
        left.remove(first)
    return order


def test_learnability_takes_the_largest_loss_and_the_lower_of_equal_rows() -> None:
    signals = draw(60)
    order = rank_with_responses(Learnability(uses_response=True), make_pool(60), signals, 60).indices.tolist()
    assert order == by_selection(lambda row: (-signals.loss[row],), 60)


def test_ifd_takes_the_largest_ratio_up_to_1_and_then_the_others_from_the_nearest_to_1() -> None:
    signals = draw(60)

    def key(row: int) -> tuple[bool, float]:
        after, alone = signals.loss[row], signals.loss_alone[row]
        ratio = after / alone if alone else 1.0
        return ratio > 1, ratio if ratio > 1 else -ratio

    order = rank_with_responses(Ifd(uses_response=True), make_pool(60), signals, 60).indices.tolist()
    assert order == by_selection(key, 60)
    assert len({key(row)[0] for row in range(60)}) == 2


@pytest.mark.parametrize("seed", range(5))
def test_every_wrong_answer_comes_before_every_right_one_in_an_order_that_the_seed_draws(seed: int) -> None:
    signals, pool = draw(60), make_pool(60)
    order = rank_with_responses(WrongAnswers(uses_response=True, seed=seed), pool, signals, 60).indices
    num_wrong = int((~signals.correct).sum())
    assert not signals.correct[order[:num_wrong]].any() and signals.correct[order[num_wrong:]].all()
    other = rank_with_responses(WrongAnswers(uses_response=True, seed=seed + 1), pool, signals, 60).indices
    for half in (slice(num_wrong), slice(num_wrong, None)):
        assert set(order[half]) == set(other[half])
        assert order[half].tolist() != other[half].tolist()
        assert order[half].tolist() != sorted(order[half])


@each
def test_a_smaller_budget_is_a_prefix_and_earlier_picks_stay_first(reference: UpperReference) -> None:
    signals, pool = draw(50), make_pool(50)
    whole = rank_with_responses(reference, pool, signals, 50)
    assert sorted(whole.indices.tolist()) == list(range(50)) and np.isfinite(whole.gains).all()
    assert (np.diff(whole.gains) <= 0).all()
    for k in (1, 7, 49):
        picked = rank_with_responses(reference, pool, signals, k)
        np.testing.assert_array_equal(picked.indices, whole.indices[:k])
        deeper = rank_with_responses(reference, pool, signals, 50, start=picked)
        np.testing.assert_array_equal(deeper.indices, whole.indices)
    chosen = Selection(np.array([40, 3]), np.zeros(2))
    after = rank_with_responses(reference, pool, signals, 20, start=chosen).indices.tolist()
    assert after == [40, 3, *[row for row in whole.indices.tolist() if row not in (40, 3)][:18]]


@each
@pytest.mark.parametrize("k", [0, 10])
def test_a_budget_outside_the_pool_is_refused(reference: UpperReference, k: int) -> None:
    with pytest.raises(ValueError, match=r"budget \d+ is outside 1\.\.9"):
        rank_with_responses(reference, make_pool(9), draw(9), k)


@each
def test_signals_of_another_pool_or_without_a_number_are_refused(reference: UpperReference) -> None:
    with pytest.raises(ValueError, match="signals of 8 responses do not belong to pool 'test' of 9"):
        rank_with_responses(reference, make_pool(9), draw(8), 3)
    for name in ("loss", "loss_alone"):
        signals = draw(9)
        getattr(signals, name)[[2, 5]] = np.nan
        with pytest.raises(ValueError, match=r"2 of 9 prompts hold NaN or infinity \(rows 2, 5\)"):
            rank_with_responses(reference, make_pool(9), signals, 3)


@each
def test_an_upper_reference_cannot_be_called_as_a_strategy_nor_deny_what_it_reads(reference: UpperReference) -> None:
    assert not isinstance(reference, (Strategy, Greedy)) and not hasattr(reference, "select")
    with pytest.raises(ValueError, match=r"uses_response=false: \w+ reads the response of every prompt"):
        dataclasses.replace(reference, uses_response=False)
    with pytest.raises(TypeError, match="uses_response"):
        type(reference)()  # pyright: ignore[reportCallIssue]


def test_nothing_that_a_strategy_is_given_can_hold_a_response() -> None:
    """Walk the types of the arguments of `select`, through all that they are made of."""
    seen: set[type] = set()
    waiting = [Pool, types.Scores]
    while waiting:
        kind = waiting.pop()
        seen.add(kind)
        hints = typing.get_type_hints(kind)
        assert not [name for name in hints if "response" in name or "answer" in name], kind
        parts = [part for hint in hints.values() for part in (hint, *typing.get_args(hint))]
        waiting += [p for p in parts if dataclasses.is_dataclass(p) and isinstance(p, type) and p not in seen]
    assert {Pool, types.Scores, types.Target, types.TokenStats} <= seen
    assert not seen & {ResponseSignals, types.AnnotatedSet}
    assert not isinstance(Longest(), UpperReference)


def test_every_config_of_an_upper_reference_says_so_first_and_in_a_field(compose) -> None:
    assert FILES == ["ifd", "learnability", "wrong_answers"]
    for name in FILES:
        text = (choices_of("strategy") / f"{name}.yaml").read_text()
        assert text.startswith("# upper reference: reads responses; ")
        cfg = compose(f"strategy={name}")
        assert cfg.strategy.uses_response is True and isinstance(create(cfg, "strategy"), UpperReference)
