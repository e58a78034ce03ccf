"""Similarities w_ij in [0, 1] between the rows of a feature matrix, given as inner products.

A kernel never builds the n x n matrix. It embeds the features, so that with s_ij = z_i . z_j + b_i + b_j

    RBF      w_ij = 2^min(s_ij, 0)
    cosine   w_ij = min(max(s_ij, 0), 1)

so code that needs similarities takes a tile of Z Z^T, at the speed of a matrix product. The error of such an `s` is
proportional to |z_i|^2 + |z_j|^2. Rows too long for that are *far*: for them `s` is an upper bound, and pairs that it
does not rule out are computed again from the differences of the features (`Differences`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from aliquot.selection.vectors import Features, central, half_squared_norms, per_length, rescaled, unit_rows

_NUM_PAIRS = 100_000
#: Rounding of a float32 inner product, relative to the squared norm of its longest vector.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
_LARGEST = 1e30  # half a squared norm: products stay far from the largest float32
_FAR = 128.0  # half a squared norm: the error is at most 1e-4 for shorter rows, 1e-6 for most rows
_CLOSE = 1 - 2.0**-10  # a cosine; float32 does not resolve how far larger ones are below 1


class Differences(NamedTuple):
    """Similarities from differences: s_ij = top - scale |f_i x_i - f_j x_j|^2, with top 0 for RBF and 1 for cosine.

    Args:
        features: x.
        factor: f.
        scale: 0 or more.
        center: of the vectors, in units of f x.
        far: rows with a smaller bias are far.
        close: the `s` of a product above which the pair is also computed from differences.
    """

    features: Features
    factor: Float64[np.ndarray, " n"]
    scale: float
    center: Float64[np.ndarray, " d"]
    far: float
    close: float

    def take(self, rows: Int64[np.ndarray, " m"]) -> Differences:
        """Return the same for some rows."""
        return self._replace(features=self.features[rows], factor=self.factor[rows])


@dataclass(frozen=True)
class Embedding:
    """Vectors whose inner products give the similarities; see the module docstring.

    Args:
        vectors: z, one row per prompt, contiguous.
        bias: b.
        exponential: True for w = 2^s, False for w = s.
        exact: the similarities from the features, for pairs where products are inaccurate.
    """

    vectors: Features
    bias: Float32[np.ndarray, " n"]
    exponential: bool
    exact: Differences

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Int64[np.ndarray, " m"]) -> Embedding:
        """Return the embedding of some rows."""
        return Embedding(self.vectors[rows], self.bias[rows], self.exponential, self.exact.take(rows))

    def similarity(self, rows: np.ndarray, columns: np.ndarray) -> Float64[np.ndarray, " m"]:
        """Return w for the pairs (rows[p], columns[p]), in float64 from the features."""
        x, f = self.exact.features, self.exact.factor
        difference = f[rows, None] * x[rows] - f[columns, None] * x[columns]
        s = -self.exact.scale * np.einsum("pd,pd->p", difference, difference)
        if self.exponential:
            return np.exp2(s)
        one_is_zero = (f[rows] == 0) != (f[columns] == 0)
        return np.where(one_is_zero, 0.0, np.clip(1 + s, 0.0, 1.0))


@runtime_checkable
class Kernel(Protocol):
    """A similarity between feature vectors: a frozen dataclass whose fields are its hyperparameters."""

    def embed(self, features: Features) -> Embedding:
        """Return vectors whose inner products give the similarities of `features`."""
        ...


@dataclass(frozen=True)
class RBF:
    """Similarity exp(-d^2 / (gamma u)) of two prompts at Euclidean distance d.

    The convention is stated only here. The default is ours: with u the median squared distance, a typical pair has
    similarity exp(-4) = 0.02 and a pair at half the typical distance exp(-1) = 0.37. The width used in published
    results is not known to us; sweep it.

    Args:
        gamma: width, larger = broader; in units of u.
        unit: "median" for u = the median squared distance over a sample of pairs (without those at distance 0),
            "absolute" for u = 1.
        seed: of that sample.
    """

    gamma: float = 0.25
    unit: str = "median"
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.gamma > 0 and math.isfinite(self.gamma)):
            raise ValueError(f"gamma {self.gamma} is not a kernel width; use a positive number, such as 0.25")
        if self.unit not in ("median", "absolute"):
            raise ValueError(f"unit '{self.unit}' of gamma is unknown; use median or absolute")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative; use 0 or more")

    def embed(self, features: Features) -> Embedding:
        x, power = rescaled(np.ascontiguousarray(features, dtype=np.float32))
        # Distances do not change under a shift, float32 rounding does: centered vectors are the shortest.
        center = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        centered = x - center
        half_norms = half_squared_norms(centered)
        scale = self._scale(centered, power)
        if scale * half_norms.max() > _FAR:
            # A far row, or a minority of them, moves the mean away from all others. Centered rows are also rounded.
            scale, median = self._scale(x, power), central(x)
            from_median = half_squared_norms(x - median)
            if np.median(from_median) < 0.5 * np.median(half_norms):
                center, centered, half_norms = median, x - median, from_median
        longest = half_norms.max()
        if not scale * longest < _LARGEST:
            raise ValueError(
                f"gamma {self.gamma} x {self._unit(x, power) / 4.0**power:.3g} ({self.unit}) is too narrow for row "
                f"{half_norms.argmax()} at distance {math.sqrt(2 * longest) / 2.0**power:.3g} from the others: its "
                f"exponents reach {scale * longest:.3g}, and overflow beyond {_LARGEST:.0e}; use a wider one, such as "
                "0.25 with unit=median, or leave that prompt out"
            )
        return _around(x, center, centered, half_norms, scale)

    def _unit(self, x: Features, power: int) -> float:
        return 4.0**power if self.unit == "absolute" else _median_squared_distance(x, self.seed)

    def _scale(self, x: Features, power: int) -> float:
        """Return the factor that turns half a squared distance of the rescaled features into minus an exponent of 2."""
        return 2.0 / math.log(2.0) / self.gamma / self._unit(x, power)


@dataclass(frozen=True)
class Cosine:
    """Similarity of directions: the cosine of the angle, a negative one counted as 0.

    A zero vector has no direction: its similarity to other zero vectors is 1, and to everything else 0.
    """

    def embed(self, features: Features) -> Embedding:
        x = np.ascontiguousarray(features, dtype=np.float32)
        unit = unit_rows(x).astype(np.float32)
        exact = Differences(x, per_length(x), 0.5, np.zeros(x.shape[1]), -math.inf, _CLOSE)
        return Embedding(unit, np.full(len(unit), 0.5 * _ROUNDING, dtype=np.float32), exponential=False, exact=exact)


def embed_for_coverage(kernel: Kernel, features: Features) -> Embedding:
    """Embed the features of a pool for facility location, and warn where the kernel cannot tell its prompts apart."""
    embedding = kernel.embed(features)
    warn_if_degenerate(embedding, f"try another strategy.kernel.gamma or strategy/kernel than {kernel}")
    return embedding


def embed_around(embedding: Embedding, rows: Int64[np.ndarray, " m"], center: Float32[np.ndarray, " d"]) -> Embedding:
    """Return an RBF embedding of some rows around their own center, from which few of them are then far."""
    x = embedding.exact.features[rows]
    centered = x - center
    return _around(x, center, centered, half_squared_norms(centered), 2 * embedding.exact.scale)


def _around(
    x: Features, center: Float32[np.ndarray, " d"], centered: Features, half_norms: np.ndarray, scale: float
) -> Embedding:
    """Return the RBF embedding of x with exponents -scale |x_i - x_j|^2 / 2; `centered` becomes a part of it."""
    # Each exponent is raised by the rounding error of its product, so that w_ii and w of duplicates are exactly 1:
    # pairs closer than rounding count as equal. Exponents of far rows are raised above any rounding.
    far_lift = (x.shape[1] + 16) * float(np.finfo(np.float32).eps)
    is_far = (1.0 - far_lift) * scale * half_norms > _FAR
    bias = ((np.where(is_far, far_lift, _ROUNDING) - 1.0) * scale * half_norms).astype(np.float32)
    far = -_FAR if is_far.any() else -math.inf
    exact = Differences(x, np.ones(len(x)), 0.5 * scale, center.astype(np.float64), far, math.inf)
    centered *= np.float32(math.sqrt(scale))
    return Embedding(centered, bias, exponential=True, exact=exact)


def warn_if_degenerate(embedding: Embedding, remedy: str) -> None:
    """Warn if the similarities are degenerate, so that no set is better than another."""
    if len(embedding) == 1:
        return
    mean = mean_similarity(embedding)
    if is_degenerate(mean):
        alike = "alike" if mean > 0.99 else "unlike"
        warnings.warn(
            f"degenerate kernel: the mean similarity of two prompts is {mean:.2g}, outside 1e-3..0.99, so nearly "
            f"all prompts look {alike} and the selection says little; {remedy}",
            stacklevel=2,
        )


def mean_similarity(embedding: Embedding) -> float:
    """Return the mean similarity of a fixed sample of pairs of distinct rows; there must be two or more rows."""
    return float(_over_pairs(embedding.similarity, len(embedding), seed=0).mean())


def is_degenerate(mean: float) -> bool:
    """Tell whether a mean similarity is < 1e-3 or > 0.99: nearly all rows are dissimilar, or identical."""
    return not 1e-3 <= mean <= 0.99


def _median_squared_distance(features: Features, seed: int) -> float:
    """Return the median over sampled pairs at a positive distance; 1 if no pair differs, when no unit matters."""
    if len(features) == 1:
        return 1.0
    squared = _over_pairs(
        lambda i, j: np.square(features[i] - features[j], dtype=np.float64).sum(axis=1), len(features), seed
    )
    return float(np.median(squared[squared > 0])) if (squared > 0).any() else 1.0


def _over_pairs(value: Callable[[np.ndarray, np.ndarray], np.ndarray], n: int, seed: int) -> np.ndarray:
    """Yield the values of sampled pairs of distinct rows, in blocks that bound the memory of wide features."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(n, size=_NUM_PAIRS)
    columns = (rows + rng.integers(1, n, size=_NUM_PAIRS)) % n
    blocks = zip(np.array_split(rows, 100), np.array_split(columns, 100), strict=True)
    return np.concatenate([value(i, j) for i, j in blocks])
