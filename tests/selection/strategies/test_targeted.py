"""What chooses toward a target: RDS against its loop, facility location mutual information against brute force."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from aliquot.selection.greedy.checkpoint import Checkpoint, Workspace
from aliquot.selection.kernels import RBF, Cosine, Kernel
from aliquot.selection.strategies.rds import RDS
from aliquot.selection.strategies.targeted_facility_location import TargetedFacilityLocation, similarities
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, Selection, Target

ONE = 1 << 30
KERNELS = [Cosine(), RBF(gamma=0.5)]


def small(n: int, q: int, seed: int = 0, twins: int = 0) -> tuple[Pool, Scores]:
    """A pool of n prompts, the last `twins` of which repeat the first, and a target of q."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    features[n - twins :] = features[:twins]
    names = [str(i) for i in range(n)]
    of_target = scores_of(rng.normal(size=(q, 4)).astype(np.float32))
    target = Target(Pool("target", names[:q], names[:q]), of_target)
    return Pool("small", names, names), dataclasses.replace(scores_of(features), target=target)


def scores_of(features: np.ndarray) -> Scores:
    return Scores(features, np.ones(len(features), dtype=np.int64), views={"weighted": features})


def cosines(scores: Scores) -> np.ndarray:
    assert scores.target is not None
    x, t = scores.features.astype(np.float64), scores.target.scores.features.astype(np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (t / np.linalg.norm(t, axis=1, keepdims=True)).T


@pytest.mark.parametrize("seed", range(5))
def test_target_prompts_take_turns_and_take_the_most_similar_that_is_left(seed: int) -> None:
    pool, scores = small(40, 7, seed)
    similar, left, wanted = cosines(scores), set(range(40)), list[int]()
    for turn in range(40):
        best = max(left, key=lambda row: (round(similar[row, turn % 7], 12), -row))
        wanted.append(best)
        left.remove(best)
    found = rank(RDS(), pool, scores, 40)
    assert found.indices.tolist() == wanted
    np.testing.assert_allclose(found.gains, [similar[row, turn % 7] for turn, row in enumerate(wanted)], atol=1e-12)


def test_equal_prompts_are_taken_in_their_order() -> None:
    pool, scores = small(60, 5, twins=30)
    for strategy in (RDS(), TargetedFacilityLocation(), TargetedFacilityLocation("flvmi")):
        place = np.argsort(rank(strategy, pool, scores, 60).indices)
        assert (place[:30] < place[30:]).all(), strategy


def brute_force(w: np.ndarray, value, start: list[int], k: int) -> tuple[list[int], list[float]]:  # type: ignore[no-untyped-def]
    """Greedy in float64: every candidate at every turn; ties go to the lower row."""
    chosen, gains = list(start), [0.0] * len(start)
    while len(chosen) < k:
        now = value(chosen)
        best = [(round(value([*chosen, row]) - now, 7), -row) for row in range(len(w)) if row not in chosen]
        gain, row = max(best)
        chosen.append(-row)
        gains.append(gain)
    return chosen, gains


def values(function: str, eta: float, own: np.ndarray, of_target: np.ndarray):  # type: ignore[no-untyped-def]
    """The set function, from the similarities within the pool and with the target."""

    def flqmi(chosen: list[int]) -> float:
        if not chosen:
            return 0.0
        return of_target[chosen].max(axis=0).sum() + eta * of_target[chosen].max(axis=1).sum()

    def flvmi(chosen: list[int]) -> float:
        if not chosen:
            return 0.0
        return np.minimum(own[:, chosen].max(axis=1), np.minimum(eta * of_target.max(axis=1), 1)).sum()

    return flqmi if function == "flqmi" else flvmi


def similarity_of(kernel: Kernel, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """The similarities within the pool, and with the target, in float64 from the definition."""
    assert scores.target is not None
    n = len(scores.features)
    every = np.concatenate([scores.features, scores.target.scores.features])
    embedding = kernel.embed(every)
    rows, columns = np.divmod(np.arange(len(every) ** 2), len(every))
    w = embedding.similarity(rows, columns).reshape(len(every), -1)
    return w[:n, :n], w[:n, n:]


@pytest.mark.slow
@pytest.mark.parametrize("function", ["flqmi", "flvmi"])
@pytest.mark.parametrize("eta", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize("start", [[], [11, 3]])
def test_picks_are_those_of_greedy_in_float64(function: str, eta: float, kernel: Kernel, start: list[int]) -> None:
    for seed in range(4):
        pool, scores = small(40, 5, seed)
        own, of_target = similarity_of(kernel, scores)
        value = values(function, eta, own, of_target)
        wanted, gains = brute_force(own, value, start, 25)
        given = Selection(np.array(start, dtype=np.int64), np.zeros(len(start)))
        found = rank(TargetedFacilityLocation(function, eta, kernel), pool, scores, 25, start=given)
        adds = np.array(gains) > 1e-6
        adds[: len(start)] = True
        assert found.indices[adds].tolist() == np.array(wanted)[adds].tolist()
        np.testing.assert_allclose(found.gains, gains, atol=1e-5)
        assert value(found.indices.tolist()) == pytest.approx(value(wanted), abs=1e-5)


@pytest.mark.parametrize(("function", "eta"), [("flvmi", 0.01), ("flqmi", 0.0)])  # little counts, and is soon covered
def test_what_adds_nothing_follows_by_similarity_to_the_target(function: str, eta: float) -> None:
    pool, scores = small(40, 3)
    _, of_target = similarity_of(Cosine(), scores)
    found = rank(TargetedFacilityLocation(function, eta), pool, scores, 40)
    rest = found.indices[found.gains == 0]
    assert 10 < len(rest) < 40
    assert (np.diff(of_target[rest].max(axis=1)) <= 1e-9).all()


@pytest.mark.slow
@pytest.mark.parametrize("function", ["flqmi", "flvmi"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_picks_agree_with_submodlib(function: str, eta: float) -> None:
    submodlib = pytest.importorskip("submodlib")
    pool, scores = small(60, 6, seed=3)
    own, of_target = similarity_of(RBF(gamma=0.5), scores)
    more = {"queryDiversityEta": eta}
    if function == "flqmi":
        peer = submodlib.FacilityLocationVariantMutualInformationFunction(
            n=60, num_queries=6, query_sijs=of_target, **more
        )
    else:
        peer = submodlib.FacilityLocationMutualInformationFunction(
            n=60, num_queries=6, data_sijs=own, query_sijs=of_target, magnificationEta=eta
        )
    theirs = peer.maximize(
        budget=20, optimizer="NaiveGreedy", stopIfZeroGain=False, stopIfNegativeGain=False, verbose=False
    )
    found = rank(TargetedFacilityLocation(function, eta, RBF(gamma=0.5)), pool, scores, 20)
    np.testing.assert_allclose(found.gains, [gain for _, gain in theirs], atol=1e-4)  # picks may differ in a tie
    value = values(function, eta, own, of_target)
    for k in range(1, 21):
        assert value(found.indices[:k].tolist()) == pytest.approx(value([row for row, _ in theirs[:k]]), abs=1e-4)
    assert [row for row, _ in theirs[:4]] == found.indices[:4].tolist()


def test_similarities_are_those_of_the_kernel() -> None:
    _, scores = small(30, 4, twins=10)
    assert scores.target is not None
    found = similarities(Cosine(), scores.features, scores.target.scores.features)
    np.testing.assert_allclose(found / ONE, np.clip(cosines(scores), 0, 1), atol=1e-6)
    np.testing.assert_array_equal(found[20:], found[:10])


def test_a_kernel_that_cannot_tell_prompts_apart_is_named() -> None:
    pool, scores = small(30, 4)
    with pytest.warns(UserWarning, match="degenerate"):
        rank(TargetedFacilityLocation(kernel=RBF(gamma=1e-3)), pool, scores, 3)


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"function": "fl"}, "flqmi or flvmi"), ({"eta": -1.0}, "eta"), ({"function": "flvmi", "eta": 0.0}, "eta")],
)
def test_a_function_that_means_nothing_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(TargetedFacilityLocation(), **fields)  # pyright: ignore


def test_a_smaller_budget_can_be_ranked_where_a_larger_one_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, scores = small(60, 5)
    expected = rank(TargetedFacilityLocation(), pool, scores, 10)
    save = Checkpoint.save

    def save_and_be_killed(self: Checkpoint, arrays: Mapping[str, np.ndarray]) -> None:
        save(self, arrays)
        if len(arrays["indices"]) == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_and_be_killed)
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        rank(TargetedFacilityLocation(), pool, scores, 50, workspace=Workspace(tmp_path))
    found = rank(TargetedFacilityLocation(), pool, scores, 10, workspace=Workspace(tmp_path))
    np.testing.assert_array_equal(found.indices, expected.indices)
