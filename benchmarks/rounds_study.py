"""The tables of the study of rounds: docs/results.md. The data are those of `allocation_study.py`.

python benchmarks/allocation_study.py data study
python run.py -m experiments=rounds/random seed=0,1,2,3,4
python run.py -m experiments=rounds/allocation_pool,rounds/allocation_groups rounds=1,2,4,8 seed=0,1,2,3,4
python run.py -m experiments=rounds/mean_entropy,rounds/facility_location rounds=1,2,4 seed=0,1,2,3,4
python benchmarks/rounds_study.py --store outputs --out docs/results/rounds
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from allocation_study import _WEIGHTINGS, pool_counts, reweighed

from aliquot.evaluation.held_out.measures import weights
from aliquot.evaluation.weightings import POOL, TASKS
from aliquot.experiment.record import RunRecord
from aliquot.report.analysis.compare import find
from aliquot.report.analysis.findings import REFERENCE, Finding
from aliquot.report.analysis.numbers import p_value, percent, points, points_interval, with_interval
from aliquot.report.analysis.statistics import holm
from aliquot.report.analysis.study import Cell, Study
from aliquot.report.reading import read_studies

BUDGET = 10_000


def arm_of(record: RunRecord) -> tuple[str, int] | None:
    """Return the file and the number of rounds of a run of this study; None for one of another."""
    (file,) = [o.partition("=")[2] for o in record.overrides if o.startswith("experiments=")] or [""]
    folder, _, name = file.partition("/")
    ours = folder == "rounds" or file == "allocation/random"  # the study of allocation may have made these runs
    return (name, len(record.rounds) or 1) if ours and record.budget == BUDGET else None


def named(study: Study, weight: np.ndarray) -> list[Cell]:
    """Return the cells of the study's arms, under their names, with questions weighed."""
    arms = {record.id: arm for record in study.records if (arm := arm_of(record))}
    cells: list[Cell] = []
    for cell in study.cells:
        if cell.budget == BUDGET and cell.runs[0] in arms:
            file, rounds = arms[cell.runs[0]]
            name = file if file == "random" else f"{file}, {rounds} round{'s' * (rounds > 1)}"
            cells.append(replace(cell, arm=replace(cell.arm, name=name)))
    return reweighed(cells, weight)


def against_one_round(study: Study, cells: Sequence[Cell]) -> dict[tuple[str, str], Finding]:
    """Compare each arm with the same one in one round: (measure, arm) -> finding, with Holm over a measure's arms."""
    found: list[Finding] = []
    for file in {cell.arm.name.partition(",")[0] for cell in cells} - {REFERENCE}:
        family = [cell for cell in cells if cell.arm.name.partition(",")[0] == file]
        alone = [replace(c, arm=replace(c.arm, strategy=REFERENCE)) if c.arm.name.endswith("1 round") else c
                 for c in family]  # fmt: skip
        if len(alone) > 1:
            found += [f for f in find(replace(study, cells=alone, base={})).findings if f.comparison]
    adjusted: dict[tuple[str, str], Finding] = {}
    for measure in {f.benchmark for f in found}:
        tested = [f for f in found if f.benchmark == measure and f.comparison and f.comparison.p is not None]
        p_values = holm([f.comparison.p for f in tested if f.comparison and f.comparison.p is not None])
        for f, p in zip(tested, p_values, strict=True):
            assert f.comparison is not None
            adjusted[measure, f.arm.name] = replace(f, comparison=replace(f.comparison, p_adjusted=p))
    return adjusted


def _compared(finding: Finding | None) -> tuple[str, str]:
    if finding is None or finding.comparison is None:
        return "", ""
    c = finding.comparison
    return with_interval(points(c.difference), points_interval(c.difference)), p_value(c.p_adjusted)


def compare(study: Study, tasks: Sequence[str], shares: dict[str, float]) -> list[dict[str, object]]:
    """Return one row per measure, weighting and arm."""
    rows: list[dict[str, object]] = []
    for weighting, share in ((TASKS, None), (POOL, shares)):
        weight = weights(tasks, len(tasks), weighting, share)
        assert weight is not None
        cells = named(study, weight)
        alone = against_one_round(study, cells)
        for f in find(replace(study, cells=cells, base={})).findings:
            random, one = _compared(f), _compared(alone.get((f.benchmark, f.arm.name)))
            about = {"measure": f.benchmark, "weighting": weighting, "arm": f.arm.name, "seeds": f.num_replicates}
            results = {"score": percent(f.score), "minus_random": random[0], "p_random": random[1]}
            rows.append({**about, **results, "minus_one_round": one[0], "p_one_round": one[1]})
    return rows


def projections(records: Iterable[RunRecord]) -> list[dict[str, object]]:
    """Return one row per arm and round: the projected gain of the next batch, and the gain that was measured."""
    found: dict[tuple[str, int, int], list[tuple[float, float, float, float]]] = defaultdict(list)
    for record in records:
        arm = arm_of(record)
        for number, (one, following) in enumerate(zip(record.rounds, record.rounds[1:], strict=False), start=1):
            if arm and one.prospect:
                by = TASKS if one.prospect.toward == "groups" else POOL
                now, then = (next(m.weighted[by][0] for m in r.finetuned if m.name == "likelihood")
                             for r in (one, following))  # fmt: skip
                p = one.prospect
                found[(*arm, number)].append((p.points, p.low, p.high, 100 * (then - now)))
    return [
        {"arm": arm, "rounds": rounds, "after_round": number, "seeds": len(values)}
        | {
            name: f"{fmean(v[i] for v in values):.2f}"
            for i, name in enumerate(("projected", "low", "high", "measured"))
        }
        for (arm, rounds, number), values in sorted(found.items())
    ]


def stability(records: Iterable[RunRecord]) -> list[dict[str, object]]:
    """Return one row per arm and signal: means over seeds."""
    found: dict[tuple[str, int, str], list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        if arm := arm_of(record):
            for name, s in record.stability.items():
                if s.correlation is not None:
                    found[(*arm, name)].append((s.correlation, s.overlap))
    return [
        {"arm": arm, "rounds": rounds, "signal": name, "seeds": len(values),
         "rank_correlation": f"{fmean(c for c, _ in values):.3f}", "same_picks": f"{fmean(o for _, o in values):.3f}"}
        for (arm, rounds, name), values in sorted(found.items())
    ]  # fmt: skip


def _markdown(title: str, rows: Sequence[dict[str, object]], columns: Sequence[str]) -> list[str]:
    lines = [f"## {title}", "", "| " + " | ".join(c.replace("_", " ") for c in columns) + " |"]
    lines.append("|" + "---|" * len(columns))
    return [*lines, *("| " + " | ".join(str(row[c]) for c in columns) + " |" for row in rows), ""]


def _csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Write results.csv, projections.csv, stability.csv and results.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("outputs"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/rounds"))
    arguments = parser.parse_args()
    studies = [s for s in read_studies(arguments.store) if any(arm_of(record) for record in s.records)]
    study = max(studies, key=lambda s: sum(arm_of(record) is not None for record in s.records))
    record = next(record for record in study.records if arm_of(record))
    evaluated = next(key for name, key, _ in record.stages if name == "evaluate finetuned")
    metrics = json.loads((arguments.store / "evaluate" / evaluated / "metrics.json").read_text(encoding="utf-8"))
    counts = pool_counts()
    shares = {task: count / counts.total() for task, count in counts.items()}
    rows, chain = compare(study, metrics["tasks"]["likelihood"], shares), projections(study.records)
    signals, out = stability(study.records), arguments.out
    out.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for measure in study.benchmarks:
        for weighting in (TASKS, POOL):
            of = [r for r in rows if (r["measure"], r["weighting"]) == (measure, weighting)]
            columns = ("arm", "seeds", "score", "minus_random", "p_random", "minus_one_round", "p_one_round")
            lines += _markdown(f"{measure}, {_WEIGHTINGS[weighting]}", of, columns)
    if chain:
        lines += _markdown(
            "Projected and measured gain of the next batch, points of likelihood", chain, tuple(chain[0])
        )
    if signals:
        lines += _markdown("Signals of the last round's model against the base model's", signals, tuple(signals[0]))
    for name, table in (("results", rows), ("projections", chain), ("stability", signals)):
        if table:
            _csv(out / f"{name}.csv", table)
    (out / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
