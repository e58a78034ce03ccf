"""The strategy on token features: its set function, its units and what it reads of them."""

from __future__ import annotations

import numpy as np
import pytest

from aliquot.selection.strategies.information_gain import InformationGain
from aliquot.selection.strategy import rank
from aliquot.types import Pool, Scores, TokenFeatures


def make_pool(lengths: np.ndarray, r: int = 6, seed: int = 0) -> tuple[Pool, Scores]:
    n, vectors = len(lengths), np.random.default_rng(seed).normal(size=(lengths.sum(), r)).astype(np.float32)
    pool = Pool("test", [str(i) for i in range(n)], ["x"] * n)
    features = np.zeros((n, 1), dtype=np.float32)
    return pool, Scores(features, np.ones(n, dtype=np.int64), None, TokenFeatures(lengths, vectors))


def split(scores: Scores) -> list[np.ndarray]:
    """X_i of every prompt."""
    token_features = scores.token_features
    assert token_features is not None
    return np.split(token_features.vectors.astype(np.float64), token_features.starts[1:])


def brute_force(blocks: list[np.ndarray], sigma: float, k: int) -> tuple[list[int], list[float]]:
    """Greedy on log det(sigma^2 I + sum X^T X), from its definition."""
    r = blocks[0].shape[1]
    chosen, gains, a = [], [], sigma**2 * np.eye(r)
    while len(chosen) < k:
        every = np.array([np.linalg.slogdet(a + x.T @ x)[1] for x in blocks]) - np.linalg.slogdet(a)[1]
        every[chosen] = -np.inf
        chosen.append(int(every.argmax()))
        gains.append(float(every.max()))
        a = a + blocks[chosen[-1]].T @ blocks[chosen[-1]]
    return chosen, gains


LENGTHS = np.random.default_rng(1).integers(1, 9, size=40)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("length", ["raw", "sqrt"])
@pytest.mark.parametrize("max_tokens", [None, 3])
def test_equals_brute_force(sigma: float, length: str, max_tokens: int | None) -> None:
    pool, scores = make_pool(LENGTHS)
    blocks = [x[-(max_tokens or 99) :] for x in split(scores)]
    if length == "sqrt":
        blocks = [x / np.sqrt(len(x)) for x in blocks]
    picks, gains = brute_force(blocks, sigma, 40)
    found = rank(InformationGain(sigma, "absolute", length, max_tokens), pool, scores, 40)
    assert found.indices.tolist() == picks
    np.testing.assert_allclose(found.gains, gains, rtol=1e-6, atol=1e-12)


def test_in_units_of_the_pool_the_scale_of_the_vectors_does_not_matter() -> None:
    pool, scores = make_pool(LENGTHS)
    assert scores.token_features is not None
    scaled = Scores(
        scores.features,
        scores.prompt_lengths,
        None,
        TokenFeatures(LENGTHS, scores.token_features.vectors * np.float32(1024)),
    )
    one, two = (rank(InformationGain(), pool, each, 40) for each in (scores, scaled))
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.gains, two.gains, rtol=1e-9)


def test_a_first_token_of_typical_length_gains_log_two() -> None:
    pool, scores = make_pool(np.ones(5, dtype=np.int64))
    assert scores.token_features is not None
    scores.token_features.vectors[:] = 3 * np.eye(6)[:5]
    assert rank(InformationGain(), pool, scores, 1).gains[0] == pytest.approx(np.log(2))


@pytest.mark.slow
def test_raw_prefers_the_long_and_sqrt_does_not() -> None:
    pool, scores = make_pool(np.repeat([1, 8], 100), r=64)
    long = {
        length: (rank(InformationGain(length=length), pool, scores, 30).indices >= 100) for length in ("raw", "sqrt")
    }
    assert long["raw"].all()
    assert not long["sqrt"].all()


def test_reads_vectors_from_disk(tmp_path) -> None:
    pool, scores = make_pool(LENGTHS)
    assert scores.token_features is not None
    np.save(tmp_path / "vectors.npy", scores.token_features.vectors)
    mapped = TokenFeatures(LENGTHS, np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    on_disk = Scores(scores.features, scores.prompt_lengths, None, mapped)
    one, two = (rank(InformationGain(), pool, each, 20) for each in (scores, on_disk))
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.gains, two.gains)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, r"sigma 0\.0 .* positive"),
        ({"sigma": float("nan")}, "sigma nan"),
        ({"unit": "median"}, "unit 'median' .* rms or absolute"),
        ({"length": "log"}, "length 'log' .* raw or sqrt"),
        ({"max_tokens": 0}, "max_tokens 0 .* 1 or more"),
    ],
)
def test_bad_options_are_refused_when_they_are_given(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InformationGain(**options)  # pyright: ignore[reportArgumentType]
