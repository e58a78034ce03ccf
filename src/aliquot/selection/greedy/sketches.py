"""Vectors of which only the main directions are seen: their products cost less and still tell most pairs apart.

With orthonormal directions U, a vector x is sketched as (U^T x, |x - U U^T x|). By Cauchy and Schwarz the product of
two sketches is at least that of the vectors, and so the distance that follows from it at most the true one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

Points = Float[np.ndarray, "n d"]  # float32 or float64

_SAMPLE = 512  # vectors whose principal directions are taken
_SHARES = (0.75, 0.625, 0.5, 0.375, 0.25, 0.125)  # of the dimensions, that a sketch may see


@dataclass(frozen=True)
class Sketch:
    """How vectors are seen.

    Args:
        centre: what is taken from all of them first.
        directions: U, as columns; None for all directions, where a sketch is the vector itself.
    """

    centre: Float32[np.ndarray, " d"]
    directions: Float64[np.ndarray, "d h"] | None = None

    @property
    def width(self) -> int:
        """The length of a sketch."""
        return len(self.centre) if self.directions is None else self.directions.shape[1] + 1

    def of(self, vectors: Points) -> Float32[np.ndarray, "n w"]:
        """Return the sketches of some vectors."""
        centred = vectors - self.centre
        if self.directions is None:
            return centred.astype(np.float32, copy=False)
        exact = centred.astype(np.float64)  # so that a sketch is rounded once, as the vector is
        seen = exact @ self.directions
        unseen = (_squares(exact) - _squares(seen)).clip(0)
        return np.column_stack([seen, np.sqrt(unseen)]).astype(np.float32)


def principal(points: Points, centre: Float32[np.ndarray, " d"]) -> Float64[np.ndarray, "d m"]:
    """Return the principal directions of a sample of the points, the widest first."""
    rows = np.random.default_rng(0).permutation(len(points))[:_SAMPLE]
    return np.linalg.svd((points[rows] - centre).astype(np.float64), full_matrices=False)[2].T


def cheapest(
    centre: Float32[np.ndarray, " d"],
    directions: Float64[np.ndarray, "d m"],
    points: Points,
    bound: Float64[np.ndarray, " n"],
    centres: Points,
    per_point: float,
    pair: float,
) -> Sketch:
    """Return the sketch by which it is the least work to find the centres within the bounds of some points.

    Args:
        centre: of the sketches.
        directions: to choose the first of.
        points, centres: samples of those that are to meet.
        bound: squared distances from the points within which a centre has to be looked at.
        per_point: how many centres a point meets for each time that it is sketched.
        pair: what a look at a pair costs, in dimensions of a product.
    """
    x, c = (vectors.astype(np.float64) - centre for vectors in (points, centres))
    x_squared, c_squared = _squares(x), _squares(c)
    least_product = (np.add.outer(x_squared, c_squared) - bound[:, None]) / 2
    x, c = x @ directions, c @ directions
    best, least = Sketch(centre), float(len(centre))
    for h in (int(share * len(centre)) for share in _SHARES):
        x_seen, c_seen = x[:, :h], c[:, :h]
        x_unseen, c_unseen = (x_squared - _squares(x_seen)).clip(0), (c_squared - _squares(c_seen)).clip(0)
        passing = x_seen @ c_seen.T + np.sqrt(np.outer(x_unseen, c_unseen)) >= least_product
        sketching = 2 * len(centre) * h / per_point  # in float64
        work = h + 1 + sketching + pair * float(passing.mean())
        if h <= directions.shape[1] and work < least:
            best, least = Sketch(centre, directions[:, :h]), work
    return best


def _squares(vectors: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
    return np.einsum("nd,nd->n", vectors, vectors)
