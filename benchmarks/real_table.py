"""The results of the study on a real model, from the file of its runs alone."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from real_runs import MEASURES, NEW, WEIGHTINGS, read
from scipy.stats import t as student

from aliquot.evaluation.weightings import POOL, TASKS
from aliquot.report.analysis.statistics import holm

_TITLES = {TASKS: "tasks alike", POOL: "by the pool's shares", NEW: "tasks that the pool does not have"}
REFERENCE = "random"
#: Named in DESIGN.md before the first run: the arm of each weighting that is compared with random, at this budget.
PRIMARY, PRIMARY_BUDGET = {TASKS: "rds_last", POOL: "rds_last", NEW: "rds_last"}, 300


@dataclass(frozen=True)
class Result:
    """An arm at a budget, under one measure and weighting; all in points (%).

    Args:
        seeds: runs of the arm.
        score: their mean.
        sd: their standard deviation; NaN for one.
        tokens: response tokens trained on, the mean over runs.
        pairs: seeds that random has too.
        difference: mean difference to random over those seeds, with its 95 % interval (Student's t); NaN where there
            is none.
        p: of no difference, paired over seeds; None below two seeds or where all differences are equal.
        p_holm: adjusted over the arms of the same measure, weighting and budget, or over the primary comparisons.
    """

    measure: str
    weighting: str
    budget: int
    arm: str
    seeds: int
    score: float
    sd: float
    tokens: float
    pairs: int = 0
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float | None = None
    p_holm: float | None = None


def paired(differences: Sequence[float]) -> tuple[float, float, float, float | None]:
    """Return the mean of differences, the ends of its 95 % interval, and the p-value of a paired t-test."""
    count, mean = len(differences), float(np.mean(differences)) if differences else math.nan
    error = float(np.std(differences, ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    if not error:
        return mean, math.nan, math.nan, None
    half = float(student.ppf(0.975, count - 1)) * error
    return mean, mean - half, mean + half, float(2 * student.sf(abs(mean) / error, count - 1))


def results(lines: Sequence[Mapping[str, str]]) -> list[Result]:
    """Judge every arm at every budget, under every measure and weighting."""
    cells: dict[tuple[int, str], dict[str, Mapping[str, str]]] = defaultdict(dict)
    for line in lines:
        cells[int(line["budget"]), line["arm"]][line["seed"]] = line
    found = list[Result]()
    for measure in MEASURES:
        for weighting in WEIGHTINGS:
            for budget in sorted({budget for budget, _ in cells}):
                arms = sorted((arm for at, arm in cells if at == budget), key=lambda arm: (arm != REFERENCE, arm))
                random = cells.get((budget, REFERENCE), {})
                judged = [_judge(measure, weighting, budget, arm, cells[budget, arm], random) for arm in arms]
                found += adjusted(judged)
    return found


def _judge(
    measure: str,
    weighting: str,
    budget: int,
    arm: str,
    ours: Mapping[str, Mapping[str, str]],
    random: Mapping[str, Mapping[str, str]],
) -> Result:
    column = f"{measure}_{weighting}"
    values = {seed: float(line[column]) for seed, line in ours.items()}
    sd = float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else math.nan
    tokens = float(np.mean([float(line["response_tokens"]) for line in ours.values()]))
    score = float(np.mean(list(values.values())))
    result = Result(measure, weighting, budget, arm, len(values), score, sd, tokens)
    if arm == REFERENCE:
        return result
    differences = [values[seed] - float(random[seed][column]) for seed in sorted(values.keys() & random)]
    mean, low, high, p = paired(differences)
    return replace(result, pairs=len(differences), difference=mean, low=low, high=high, p=p)


def adjusted(found: Sequence[Result]) -> list[Result]:
    """Return results with p-values adjusted for their number (Holm 1979)."""
    values = iter(holm([result.p for result in found if result.p is not None]))
    return [result if result.p is None else replace(result, p_holm=next(values)) for result in found]


def primary(found: Sequence[Result]) -> list[Result]:
    """Return the comparisons that were named in advance, adjusted for their number."""
    wanted = {(MEASURES[0], weighting, PRIMARY_BUDGET, arm) for weighting, arm in PRIMARY.items()}
    return adjusted([r for r in found if (r.measure, r.weighting, r.budget, r.arm) in wanted])


def markdown(lines: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the lines of results.md."""
    found = results(lines)
    yield from ("## Primary comparisons", "", *_header("weighting, arm"))
    yield from (_line(f"{_TITLES[result.weighting]}, `{result.arm}`", result) for result in primary(found))
    for measure in MEASURES:
        for weighting in WEIGHTINGS:
            for budget in sorted({result.budget for result in found}):
                yield from ("", f"## {measure}, {_TITLES[weighting]}, {budget:,} rows (exploratory)", "")
                yield from _header("arm")
                at = (measure, weighting, budget)
                yield from (_line(f"`{r.arm}`", r) for r in found if (r.measure, r.weighting, r.budget) == at)


def _header(first: str) -> list[str]:
    columns = (first, "seeds", "%", "sd", "minus random", "p", "p (Holm)", "response tokens")
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


def _line(name: str, r: Result) -> str:
    interval = "" if math.isnan(r.low) else f" ({r.low:+.1f} to {r.high:+.1f})"
    difference = "" if math.isnan(r.difference) else f"{r.difference:+.1f}{interval}"
    p, p_holm = ("" if p is None else f"{p:.3f}" for p in (r.p, r.p_holm))
    sd = "" if math.isnan(r.sd) else f"{r.sd:.1f}"
    cells = (name, str(r.seeds), f"{r.score:.1f}", sd, difference, p, p_holm, f"{r.tokens:,.0f}")
    return "| " + " | ".join(cells) + " |"


def write(runs: Path) -> None:
    """Print results.md, and write it and results.csv beside the file of runs."""
    lines = read(runs)
    if not lines:
        raise SystemExit(f"{runs} has no finished run; start them with: python benchmarks/real_study.py run")
    found = results(lines)
    with (runs.parent / "results.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Result.__dataclass_fields__)
        table.writerows([_rounded(value) for value in vars(result).values()] for result in found)
    text = "\n".join(markdown(lines)) + "\n"
    (runs.parent / "results.md").write_text(text, encoding="utf-8")
    print(text, end="")


def _rounded(value: object) -> object:
    return ("" if math.isnan(value) else f"{value:.4g}") if isinstance(value, float) else value
