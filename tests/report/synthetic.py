"""Studies made up from known accuracies, for tests of what is made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aliquot.report.analysis.study import Arm, Cell, Study

BUDGETS = (1000, 3000, 10000, 30000)


def make_study(
    accuracy: Mapping[str, Sequence[float]],
    budgets: Sequence[int] = BUDGETS,
    num_seeds: int = 3,
    num_questions: int = 400,
    between_seeds: float = 0.01,
    benchmarks: Sequence[str] = ("demo_mmlu", "demo_bbh"),
    seed: int = 0,
) -> Study:
    """Return a study whose arms have the given true accuracies, one a budget.

    Seeds move the accuracy of a run by a normal error of standard deviation `between_seeds`; questions differ in how
    hard they are, and are the same ones in all cells.
    """
    rng = np.random.default_rng(seed)
    hardness = {name: rng.normal(0, 0.15, num_questions) for name in benchmarks}

    def answers(name: str, truth: float, rows: int) -> np.ndarray:
        chance = truth + rng.normal(0, between_seeds, (rows, 1)) - hardness[name]
        return (rng.random((rows, num_questions)) < chance).astype(np.float32)

    cells = [
        Cell(
            Arm(strategy, strategy, {}),
            budget,
            tuple(str(s) for s in range(num_seeds)),
            tuple(f"{strategy}-{budget}-{s}" for s in range(num_seeds)),
            {name: answers(name, truth, num_seeds) for name in benchmarks},
            0.0 if strategy == "random" else 150.0,
        )
        for strategy, truths in sorted(accuracy.items())
        for budget, truth in zip(budgets, truths, strict=True)
    ]
    base = {name: answers(name, 0.26, 1)[0] for name in benchmarks}
    return Study("demo, demo model", {"pool": "demo", "model": "demo"}, tuple(benchmarks), base, cells, ())
