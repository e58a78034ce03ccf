"""Vectors reduced to their main directions: their products cost less and still separate most pairs.

With orthonormal directions U, the sketch of a vector x is (U^T x, |x - U U^T x|). By Cauchy-Schwarz, the product of
two sketches is at least that of the vectors, so the distance that follows from it is at most the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

Points = Float[np.ndarray, "n d"]  # float32 or float64

_SAMPLE = 512  # vectors from which principal directions are computed
_SHARES = (0.75, 0.625, 0.5, 0.375, 0.25, 0.125)  # of the dimensions that a sketch may use


@dataclass(frozen=True)
class Sketch:
    """How vectors are sketched.

    Args:
        center: subtracted from all of them first.
        directions: U, as columns; None for all directions, in which case a sketch is the vector itself.
    """

    center: Float32[np.ndarray, " d"]
    directions: Float64[np.ndarray, "d h"] | None = None

    @property
    def width(self) -> int:
        """The length of a sketch."""
        return len(self.center) if self.directions is None else self.directions.shape[1] + 1

    def of(self, vectors: Points) -> Float32[np.ndarray, "n w"]:
        """Return the sketches of some vectors."""
        centered = vectors - self.center
        if self.directions is None:
            return centered.astype(np.float32, copy=False)
        exact = centered.astype(np.float64)  # so that a sketch is rounded once, like the vector
        seen = exact @ self.directions
        unseen = (_squares(exact) - _squares(seen)).clip(0)
        return np.column_stack([seen, np.sqrt(unseen)]).astype(np.float32)


def principal(points: Points, center: Float32[np.ndarray, " d"]) -> Float64[np.ndarray, "d m"]:
    """Return the principal directions of a sample of the points, the widest first."""
    rows = np.random.default_rng(0).permutation(len(points))[:_SAMPLE]
    return np.linalg.svd((points[rows] - center).astype(np.float64), full_matrices=False)[2].T


def cheapest(
    center: Float32[np.ndarray, " d"],
    directions: Float64[np.ndarray, "d m"],
    points: Points,
    bound: Float64[np.ndarray, " n"],
    centers: Points,
    per_point: float,
    pair: float,
) -> Sketch:
    """Return the sketch with which finding the centers within the bounds of some points takes the least work.

    Args:
        center: of the sketches.
        directions: the candidates; the first of them are used.
        points, centers: samples of the points and centers to be compared.
        bound: squared distances from the points within which a center must be examined.
        per_point: number of centers compared with a point per sketch of it.
        pair: cost of examining a pair, in dimensions of a product.
    """
    x, c = (vectors.astype(np.float64) - center for vectors in (points, centers))
    x_squared, c_squared = _squares(x), _squares(c)
    least_product = (np.add.outer(x_squared, c_squared) - bound[:, None]) / 2
    x, c = x @ directions, c @ directions
    best, least = Sketch(center), float(len(center))
    for h in (int(share * len(center)) for share in _SHARES):
        x_seen, c_seen = x[:, :h], c[:, :h]
        x_unseen, c_unseen = (x_squared - _squares(x_seen)).clip(0), (c_squared - _squares(c_seen)).clip(0)
        passing = x_seen @ c_seen.T + np.sqrt(np.outer(x_unseen, c_unseen)) >= least_product
        sketching = 2 * len(center) * h / per_point  # in float64
        work = h + 1 + sketching + pair * float(passing.mean())
        if h <= directions.shape[1] and work < least:
            best, least = Sketch(center, directions[:, :h]), work
    return best


def _squares(vectors: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    return np.einsum("nd,nd->n", vectors, vectors)
