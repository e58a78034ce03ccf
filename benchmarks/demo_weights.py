"""Whether evening out the tasks pays on `demo_bbh` depends on how its questions are weighed: docs/results.md.

    python run.py -m strategy=random,task_diversity budget=10k seed=0,1,2,3,4
    python run.py -m strategy=task_diversity strategy.groups=clusters budget=10k seed=0,1,2,3,4
    python benchmarks/demo_weights.py [--store outputs]

The demo benchmarks ask the same number of questions of each of their cells: the 27 tasks of `demo_bbh`, and the 171
pairs of subject and attribute of `demo_mmlu`. Each cell is also a task label of the pool. This weighs every question by
the share that its label has in the pool, so that what is frequent there counts as much here, and compares again.
Few frequent cells carry most of the weight then, and intervals are wide: the effective number of cells is printed too.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from aliquot.report.analysis import numbers
from aliquot.report.analysis.numbers import percent, percent_interval, points, points_interval, with_interval
from aliquot.report.analysis.statistics import Estimate, Resampling, draws, estimate, mean, p_value, summarize
from aliquot.report.analysis.study import Cell
from aliquot.report.reading import read_studies
from aliquot.store.content import locate


def cells_of(benchmark: str) -> list[str]:
    """Return the task label of the pool that each question of a benchmark is of, in the order of the answers."""
    lines = locate(f"pkg://aliquot.demo/tasks/{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    names = [row["task"].removeprefix(f"{benchmark}_") for row in rows]
    if benchmark == "demo_bbh":
        return names
    return [f"{subject}_{row['key'].rsplit(' ', 1)[1]}" for subject, row in zip(names, rows, strict=True)]


def pool_shares() -> dict[str, float]:
    """Return the share of the pool that each task label has."""
    with gzip.open(locate("pkg://aliquot.demo/pool.jsonl.gz"), "rt", encoding="utf-8") as file:
        counts = Counter(json.loads(line)["task"] for line in file)
    return {label: number / counts.total() for label, number in counts.items()}


def compare(ours: Cell, theirs: Cell | None, benchmark: str, weights: np.ndarray) -> tuple[Estimate, float | None]:
    """Return the weighted score of a cell, or its difference from another's, and the p-value of no difference."""

    def weighted(values: np.ndarray) -> np.ndarray:
        """Give every question a value of which the plain mean and its variance are those of the weighted mean."""
        score = np.average(values.mean(axis=0), weights=weights)
        return score + (values - score) * (weights / weights.mean())

    sides = [weighted(cell.correct[benchmark]) for cell in (ours, theirs) if cell is not None]
    resampling = Resampling(np.stack([values.mean(axis=0) for values in sides]).astype(np.float32))
    names = [cell.replicates for cell in (ours, theirs) if cell is not None]
    owners = [cell.arm.name for cell in (ours, theirs) if cell is not None]
    samples = [
        summarize(v, n, owner, {i: 1.0}) for i, (v, n, owner) in enumerate(zip(sides, names, owners, strict=True))
    ]
    value = mean(*samples)
    drawn = [resampling.draw(sample) for sample in samples]
    return estimate(value, draws(value, *drawn), least=-1.0 if theirs else 0.0), p_value(value)


def main() -> None:
    """Print one row a benchmark, weighing, budget and way of grouping."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("outputs"))
    study = read_studies(parser.parse_args().store)[0]
    share = pool_shares()
    table = Table(
        "benchmark", "questions count", "budget", "strategy", "seeds", "score, %", "minus random, points", "p"
    )
    for benchmark in study.benchmarks:
        labels = cells_of(benchmark)
        weighings = {
            "alike": np.ones(len(labels)),
            "by the pool's shares": np.array([share[label] for label in labels]),
        }
        for name, weights in weighings.items():
            by_cell = np.array([weights[np.array(labels) == label].sum() for label in dict.fromkeys(labels)])
            effective = by_cell.sum() ** 2 / np.square(by_cell).sum()
            for budget in sorted({cell.budget for cell in study.cells}):
                cells = [cell for cell in study.cells if cell.budget == budget]
                random = next((cell for cell in cells if cell.arm.strategy == "random"), None)
                for cell in cells if len(cells) > 1 else []:
                    score, _ = compare(cell, None, benchmark, weights)
                    compared = random is not None and cell is not random
                    difference, p = compare(cell, random, benchmark, weights) if compared else (None, None)
                    table.add_row(
                        benchmark,
                        f"{name}: {effective:.1f} cells",
                        f"{budget:,}",
                        cell.arm.name,
                        str(len(cell.replicates)),
                        with_interval(percent(score), percent_interval(score)),
                        with_interval(points(difference), points_interval(difference)) if difference else "",
                        numbers.p_value(p) if difference else "",
                    )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
