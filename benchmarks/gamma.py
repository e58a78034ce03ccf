"""How the width of facility location's kernel decides between typical and outlying picks.

    python run.py until=score store=out                     # once: the scores of a pool
    python benchmarks/gamma.py out                          # position-weighted means, scaled to length 1
    python benchmarks/gamma.py out --view first --normalize raw --csv out.csv

Of the first 300 and 1,000 picks from a sample of 20,000 prompts:

typical     the mean percentile of how typical they are: the mean distance to the 20 nearest prompts, 100 for the
            smallest of the sample, 50 for random picks
singletons  the share of picks that are the nearest pick of no other prompt
distance    the mean distance of a prompt of the sample to the nearest pick, relative to that of random picks
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from contest import append

from aliquot.scoring.normalization import NORMALIZATIONS, Normalization
from aliquot.scoring.run import load_scores
from aliquot.selection.kernels import RBF
from aliquot.selection.strategies.coverage import Coverage
from aliquot.selection.strategies.facility_location import FacilityLocation
from aliquot.selection.strategies.k_center import KCenter
from aliquot.selection.strategies.random import Random
from aliquot.selection.strategies.typiclust import TypiClust
from aliquot.selection.strategy import Strategy, rank
from aliquot.selection.typicality import typicality
from aliquot.types import Pool, Scores

GAMMAS = (0.01, 0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)  # in units of the median squared distance
PICKS = (300, 1000)
COLUMNS = ("pool", "n", "view", "normalize", "strategy", "gamma", "unit", "k", "typical", "singletons", "distance")


def strategies(normalize: str) -> dict[str, Strategy]:
    """Return what is compared; herding is defined on unit norms."""
    herding = {"herding": FacilityLocation(kernel=RBF(1.0, "absolute"))} if normalize.endswith("unit") else {}
    return {
        "random": Random(),
        **{f"facility_location gamma={gamma}": FacilityLocation(kernel=RBF(gamma)) for gamma in GAMMAS},
        **herding,
        "coverage": Coverage(),
        "typiclust": TypiClust(features=None, normalize="raw"),
        "k_center": KCenter(),
    }


def sample(store: Path, view: str, normalize: str, rows: int) -> np.ndarray:
    """Return the features of a sample of the pool whose scores are in a store; `view` first is the scorer's first."""
    found = sorted(file.parent for file in store.glob("score/*/features.npy"))
    if len(found) != 1:
        raise SystemExit(f"{store} holds the scores of {len(found)} pools; name a store that holds those of one")
    scores = load_scores(found[0])
    features = np.asarray(scores.features if view == "first" else scores.views[view], dtype=np.float32)
    chosen = np.sort(np.random.default_rng(0).permutation(len(features))[:rows])
    return Normalization.fit(features, normalize).apply(features[chosen])


def nearest_picks(x: np.ndarray, picks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of each row's nearest pick, and its distance."""
    wide = x.astype(np.float64)
    squares = np.einsum("nd,nd->n", wide, wide)
    squared = squares[:, None] + squares[picks] - 2 * wide @ wide[picks].T
    return squared.argmin(axis=1), np.sqrt(squared.min(axis=1).clip(0))


def measure(x: np.ndarray, percentile: np.ndarray, picks: np.ndarray) -> dict[str, float]:
    nearest, distance = nearest_picks(x, picks)
    served = np.bincount(np.delete(nearest, picks), minlength=len(picks))
    return {
        "typical": float(percentile[picks].mean()),
        "singletons": float((served == 0).mean()),
        "distance": float(distance.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--name", default="demo", help="of the pool in the csv")
    parser.add_argument("--view", default="weighted")
    parser.add_argument("--normalize", default="unit", choices=NORMALIZATIONS)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    x = sample(arguments.store, arguments.view, arguments.normalize, arguments.rows)
    n = len(x)
    pool, scores = Pool("sample", [str(i) for i in range(n)], ["x"] * n), Scores(x, np.ones(n, dtype=np.int64))
    mean_distance = typicality(x, np.zeros(n, dtype=np.int64))
    percentile = 100 * (n - 1 - np.argsort(np.argsort(mean_distance, kind="stable"))) / (n - 1)
    reference = dict[int, float]()
    print(f"{'strategy':32} {'k':>5} {'typical':>8} {'singletons':>10} {'distance':>8}")
    for name, strategy in strategies(arguments.normalize).items():
        for k in PICKS:
            figures = measure(x, percentile, rank(strategy, pool, scores, k).indices)
            figures["distance"] /= reference.setdefault(k, figures["distance"])
            print("{:32} {:5} {typical:8.1f} {singletons:10.2f} {distance:8.3f}".format(name, k, **figures), flush=True)
            kernel = strategy.kernel if isinstance(strategy, FacilityLocation) else None
            width = {"gamma": kernel.gamma, "unit": kernel.unit} if isinstance(kernel, RBF) else {}
            setting = {"pool": arguments.name, "n": n, "view": arguments.view, "normalize": arguments.normalize}
            row = {**setting, "strategy": name.split()[0], **width, "k": k, **figures}
            if arguments.csv:
                rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
                append(arguments.csv, [rounded], COLUMNS)


if __name__ == "__main__":
    main()
