"""Pooling and normalisation, against loops over tokens and rows."""

import numpy as np
import pytest
import torch

from aliquot.scoring.features import POSITIONS, pool_positions
from aliquot.scoring.normalization import NORMALIZATIONS, Normalization, normalize_in_place

LENGTHS = (1, 4, 7)


def left_padded(dtype=torch.float32):
    """Return states of prompts of several lengths, NaN where padding is, and their mask."""
    states = torch.randn(len(LENGTHS), max(LENGTHS), 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = (torch.arange(max(LENGTHS)) >= max(LENGTHS) - torch.tensor(LENGTHS)[:, None]).long()
    return states.masked_fill(mask[:, :, None] == 0, float("nan")), mask


def pooled_one_by_one(states, mask, position):
    rows = []
    for row, keep in zip(states.float().numpy(), mask.numpy().astype(bool), strict=True):
        tokens = row[keep]
        weights = {
            "last": np.eye(len(tokens))[-1],
            "mean": np.ones(len(tokens)),
            "weighted": np.arange(1, len(tokens) + 1),
        }[position]
        rows.append(np.average(tokens, axis=0, weights=weights))
    return np.array(rows)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_reads_the_tokens_and_never_the_padding(position, dtype, side):
    states, mask = left_padded(dtype)
    if side == "right":
        shifts = zip(states, mask, (max(LENGTHS) - length for length in LENGTHS), strict=True)
        states, mask = map(torch.stack, zip(*[(s.roll(-by, 0), m.roll(-by, 0)) for s, m, by in shifts], strict=True))
    pooled = pool_positions(states, mask, position)
    assert pooled.dtype == torch.float32
    np.testing.assert_allclose(pooled.numpy(), pooled_one_by_one(states, mask, position), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", NORMALIZATIONS)
def test_normalisation_in_blocks_is_normalisation_of_the_whole(how):
    raw = np.random.default_rng(0).normal(3, 1, (23, 4)).astype(np.float32)
    centered = raw - raw.mean(axis=0, dtype=np.float64)
    left, _, right = np.linalg.svd(centered, full_matrices=False)  # another way to the whitened vectors
    wanted = {"raw": raw, "centered": centered, "whitened": np.sqrt(len(raw)) * left @ right}.get(
        how.removesuffix("_unit") if how != "unit" else "raw"
    )
    assert wanted is not None
    if how.endswith("unit"):
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    features = raw.copy()
    normalize_in_place(features, how, block=5)
    np.testing.assert_allclose(features, wanted, rtol=1e-5, atol=1e-6)


def test_a_zero_vector_keeps_no_direction_and_nan_is_not_hidden():
    features = np.array([[0, 0], [np.nan, 1], [3, 4]], dtype=np.float32)
    normalize_in_place(features, "unit")
    np.testing.assert_array_equal(features[0], 0)
    assert np.isnan(features[1]).all()
    np.testing.assert_allclose(features[2], [0.6, 0.8], rtol=1e-6)


def test_whitened_vectors_vary_alike_in_every_direction_that_they_have():
    rng = np.random.default_rng(1)
    raw = (rng.normal(size=(500, 3)) @ rng.normal(size=(3, 5)) * 100 + 7).astype(np.float32)  # three of five directions
    whitened = Normalization.fit(raw, "whitened").apply(raw)
    variances = np.linalg.eigvalsh(np.cov(whitened.T, bias=True))
    np.testing.assert_allclose(variances, [0, 0, 1, 1, 1], atol=1e-4)


def test_what_is_fitted_on_some_vectors_is_applied_to_others():
    rng = np.random.default_rng(2)
    raw, others = (rng.normal(3, 1, size=(n, 4)).astype(np.float32) for n in (50, 7))
    for how in NORMALIZATIONS:
        fitted = Normalization.fit(raw, how)
        together = fitted.apply(np.concatenate([raw, others]))
        np.testing.assert_allclose(fitted.apply(others), together[50:], rtol=1e-6, atol=1e-6)
