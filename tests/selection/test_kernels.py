"""Kernels against their formulas in float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from aliquot.selection.kernels import RBF, Cosine, Embedding, warn_if_degenerate
from aliquot.selection.vectors import unit_rows


def features_of(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def matrix(embedding: Embedding) -> np.ndarray:
    n = len(embedding)
    rows, columns = (a.ravel() for a in np.indices((n, n)))
    return embedding.similarity(rows, columns).reshape(n, n)


def squared_distances(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return np.square(x[:, None] - x[None]).sum(axis=2)


@pytest.mark.parametrize("gamma", [0.05, 0.25, 1.0, 30.0])
def test_absolute_rbf_is_its_formula(gamma: float) -> None:
    x = features_of(40) + 7
    w = matrix(RBF(gamma=gamma, unit="absolute").embed(x))
    np.testing.assert_allclose(w, np.exp(-squared_distances(x) / gamma), rtol=2e-3, atol=1e-6)


def test_median_unit_is_the_median_squared_distance_of_different_prompts() -> None:
    x = features_of(50)
    off_diagonal = squared_distances(x)[~np.eye(50, dtype=bool)]
    w = matrix(RBF(gamma=0.5, unit="median").embed(x))
    expected = np.exp(-squared_distances(x) / (0.5 * np.median(off_diagonal)))
    np.testing.assert_allclose(w, expected, atol=0.01)


def test_median_unit_makes_the_scale_and_the_shift_of_features_irrelevant() -> None:
    x = features_of(50)
    np.testing.assert_allclose(matrix(RBF().embed(x)), matrix(RBF().embed(1000 * x + 50)), atol=1e-4)


def test_cosine_is_the_cosine_with_negatives_at_zero() -> None:
    x = features_of(40).astype(np.float64)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    w = matrix(Cosine().embed(x.astype(np.float32)))
    np.testing.assert_allclose(w, np.clip(unit @ unit.T, 0, 1), atol=1e-5)


@pytest.mark.parametrize("kernel", [RBF(), RBF(gamma=100.0, unit="absolute"), Cosine()])
def test_a_prompt_and_its_duplicate_have_similarity_exactly_one(kernel: RBF | Cosine) -> None:
    x = np.concatenate([features_of(30), features_of(30)]) * 20
    w = matrix(kernel.embed(x))
    np.testing.assert_array_equal(w.diagonal(), 1.0)
    np.testing.assert_array_equal(w[:30, 30:].diagonal(), 1.0)


def test_zero_vectors_are_like_each_other_and_unlike_all_others() -> None:
    x = features_of(6)
    x[[1, 4]] = 0
    np.testing.assert_allclose(np.linalg.norm(unit_rows(x), axis=1), 1.0, rtol=1e-6)
    w = matrix(Cosine().embed(x))
    assert w[1, 4] == 1.0
    assert (np.delete(w[1], [1, 4]) < 1e-5).all()


def test_the_embedding_of_wide_features_far_from_the_origin_stays_exact() -> None:
    x = (features_of(20, d=64) + 300).astype(np.float32)
    w = matrix(RBF().embed(x))
    assert (w.diagonal() == 1).all()
    assert w[~np.eye(20, dtype=bool)].max() < 0.5


@pytest.mark.parametrize(("gamma", "word"), [(1e-4, "unlike"), (1e4, "alike")])
def test_a_degenerate_kernel_warns_with_the_number_and_the_remedy(gamma: float, word: str) -> None:
    with pytest.warns(UserWarning, match=rf"degenerate kernel.*{word}.*sweep gamma"):
        warn_if_degenerate(RBF(gamma=gamma).embed(features_of(100)), "sweep gamma")


@pytest.mark.slow
@pytest.mark.parametrize("d", [4, 64, 1024])
def test_the_default_width_is_not_degenerate(d: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_degenerate(RBF().embed(features_of(300, d)), "")


@pytest.mark.parametrize("bad", [{"gamma": 0.0}, {"gamma": -1.0}, {"gamma": float("nan")}, {"unit": "mean"}])
def test_bad_hyper_parameters_are_refused_with_a_remedy(bad: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match="use"):
        RBF(**bad)  # pyright: ignore


@pytest.mark.parametrize("gamma", [1e-4, 1e-9, 1e-20])
def test_a_row_is_similar_to_itself_and_to_its_copies_however_narrow_the_kernel(gamma: float) -> None:
    x = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    x[7] *= 1000
    embedding = RBF(gamma).embed(np.concatenate([x, x]))
    rows = np.arange(100)
    np.testing.assert_array_equal(embedding.similarity(rows, rows), 1)
    np.testing.assert_array_equal(embedding.similarity(rows, (rows + 50) % 100), 1)


def test_an_outlier_is_similar_to_itself_at_the_default_width() -> None:
    x = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    x[7] *= 1e5
    embedding = RBF().embed(x)
    np.testing.assert_array_equal(embedding.similarity(np.arange(50), np.arange(50)), 1)


def test_a_kernel_too_narrow_for_float32_says_so() -> None:
    x = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    with pytest.raises(ValueError, match=r"gamma 1e-300 x .* is too narrow .* use a wider one"):
        RBF(1e-300).embed(x)


def test_the_median_of_tiny_features_is_no_zero() -> None:
    x = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    rows, columns = np.arange(49), np.arange(1, 50)
    expected = RBF().embed(x).similarity(rows, columns)
    np.testing.assert_allclose(RBF().embed(x * np.float32(1e-25)).similarity(rows, columns), expected, rtol=1e-3)
