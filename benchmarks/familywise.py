"""How often the report calls a difference reliable that is none, and how often it finds one that is there.

    python benchmarks/familywise.py [--families 2000] [--questions 200]

A family is what one benchmark of a study compares: 15 strategies at 4 budgets with random, 60 tests under Holm's
correction. Answers are right or wrong: with probability Phi(level + seed + question), where questions are as hard as in
a probit model of unit variance and three quarters of that is shared by all cells, and seeds move the level by a normal
error of the given spread (0.1 is about 3 points of accuracy). A family is wrong if a single one of its 60 null
differences is called reliable; Holm's correction aims at 5 % of families. Power is the share of 60 true differences
that are found. "before": the test that the report had before, with Welch's degrees of freedom over the share of the
seeds in the variance.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import ndtr, ndtri, stdtr

from aliquot.report.analysis.findings import LEVEL
from aliquot.report.analysis.statistics import Mean, Sample, holm, mean, p_value, summarize

ARMS, BUDGETS = 15, 4
ACCURACY, GAIN = 0.6, 0.12
#: Seeds of random and of the others -> spreads of random's seeds and of the others', in probits.
SEEDS = ((2, 2), (3, 3), (5, 5), (8, 8), (5, 2), (5, 3))
SPREADS = ((0.1, 0.1), (0.1, 0.3), (0.3, 0.1), (0.3, 0.9))


def family(
    rng: np.random.Generator, seeds: tuple[int, int], spreads: tuple[float, float], questions: int, gain: float = 0.0
) -> Iterator[Mean]:
    """Yield the differences from random of all strategies at all budgets."""
    shared = rng.standard_normal(questions)

    def cell(which: int, name: str, accuracy: float) -> Sample:
        hardness = np.sqrt(0.75) * shared + 0.5 * rng.standard_normal(questions)
        moved = spreads[which] * rng.standard_normal((seeds[which], 1))
        level = ndtri(accuracy) * np.sqrt(2 + spreads[which] ** 2)  # so that the mean over questions and seeds is that
        right = rng.random((seeds[which], questions)) < ndtr(level + moved + hardness)
        return summarize(right.astype(np.float32), [str(s) for s in range(seeds[which])], name, {})

    for _ in range(BUDGETS):
        random = cell(0, "random", ACCURACY)
        for arm in range(ARMS):
            yield mean(cell(1, str(arm), ACCURACY + gain), random)


def found_reliable(differences: list[Mean]) -> int:
    """Return how many differences the report calls reliable."""
    p_values = [p for difference in differences if (p := p_value(difference)) is not None]
    return sum(p < LEVEL for p in holm(p_values))


def found_before(differences: list[Mean], seeds: tuple[int, int]) -> int:
    """Return how many the report called reliable before."""

    def dof(difference: Mean) -> float:
        random, ours = seeds
        total = sum(difference.seeds)
        welch = total**2 / sum(v**2 / (n - 1) for v, n in zip(difference.seeds, (ours, random), strict=True))
        return welch * (difference.questions + total) / total

    known = [d for d in differences if d.stderr > 0 and sum(d.seeds) > 0]
    p_values = [float(2 * stdtr(dof(d), -abs(d.value) / d.stderr)) for d in known]
    return sum(p < LEVEL for p in holm(p_values))


def count(
    families: int, seeds: tuple[int, int], spreads: tuple[float, float], questions: int, gain: float = 0.0
) -> np.ndarray:
    """Return how many differences of each family are called reliable, now and before."""
    rng = np.random.default_rng(15)
    counts: list[tuple[int, int]] = []
    for _ in range(families):
        differences = list(family(rng, seeds, spreads, questions, gain))
        counts.append((found_reliable(differences), found_before(differences, seeds)))
    return np.array(counts)


def main() -> None:
    """Print a table, a row a regime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=int, default=2000)
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()
    table = Table("seeds", "spreads", "wrong families, %", "before", f"power at +{100 * GAIN:.0f} points, %", "before")
    for seeds in SEEDS:
        for spreads in SPREADS:
            wrong = count(options.families, seeds, spreads, options.questions) > 0
            power = count(options.families // 4, seeds, spreads, options.questions, GAIN) / (ARMS * BUDGETS)
            row = [f"{100 * value:.1f}" for value in (*wrong.mean(axis=0), *power.mean(axis=0))]
            table.add_row("{} and {}".format(*seeds), "{} and {}".format(*spreads), *row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
