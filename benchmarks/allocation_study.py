"""The data and the tables of the study of allocation, typical prompts and targets: docs/results.md.

    python benchmarks/allocation_study.py data study
    python run.py -m experiments=allocation/random,... budget=1k,3k,10k seed=0,1,2,3,4    (all files of that folder)
    python benchmarks/allocation_study.py table --store outputs --data study --out docs/results/allocation

The data are instances that the demo's generator draws, of contents that its pool never has: 200 target prompts of 40
tasks, and rows to measure on, up to 16 of every skill. Neither shares a prompt with the pool, the
benchmarks, or the other. Two copies of the pool have other labels: those of the families (merged), and every label
divided in four at random (split).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aliquot.demo.families import SKILLS
from aliquot.demo.families.base import Task
from aliquot.demo.words import held_out, seeded
from aliquot.evaluation.held_out.measures import task_shares, weights
from aliquot.evaluation.weightings import POOL, TARGET, TASKS
from aliquot.experiment.record import RunRecord
from aliquot.report.analysis import numbers
from aliquot.report.analysis.compare import find
from aliquot.report.analysis.findings import Finding
from aliquot.report.analysis.numbers import percent, points, points_interval, with_interval
from aliquot.report.analysis.study import Cell, Study
from aliquot.report.reading import read_studies
from aliquot.store.content import locate

_WEIGHTINGS = {TASKS: "tasks alike", POOL: "by the pool's shares", TARGET: "by the target's shares"}
TARGET_TASKS, TARGET_PER_TASK, PER_TASK, PARTS = 40, 5, 16, 4
_NUM_TRIED = 20_000


def instances(task: Task, taken: set[str]) -> Iterator[tuple[str, str]]:
    """Yield prompts and responses of different held-out contents, in a fixed order."""
    rng, seen = seeded("allocation study", task.name), set[str]()
    for _ in range(_NUM_TRIED):
        item = task.draw(rng)
        if held_out(item.key) and item.key not in seen:
            seen.add(item.key)
            prompt = task.ask(item, len(seen) % len(task.prompts))
            if prompt not in taken:
                yield prompt, item.response
        if len(seen) == PER_TASK + TARGET_PER_TASK:
            return


def used() -> set[str]:
    """Return the prompts of the pool and of the benchmarks."""
    with gzip.open(locate("pkg://aliquot.demo/pool.jsonl.gz"), "rt", encoding="utf-8") as file:
        prompts = {json.loads(line)["prompt"] for line in file}
    for benchmark in ("demo_bbh", "demo_mmlu"):
        lines = locate(f"pkg://aliquot.demo/tasks/{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()
        prompts |= {str(value) for line in lines for value in json.loads(line).values()}
    return prompts


def write_data(directory: Path) -> None:
    """Write target.jsonl, held_out.jsonl, and the pool with merged and with split labels."""
    directory.mkdir(parents=True, exist_ok=True)
    taken, target, rows = used(), list[dict[str, str]](), list[dict[str, str]]()
    names = sorted(task.name for task in SKILLS if len(list(instances(task, taken))) >= 2 * TARGET_PER_TASK)
    aimed = set(seeded("allocation study", "target").sample(names, TARGET_TASKS))
    for task in SKILLS:
        drawn = list(instances(task, taken))
        first = TARGET_PER_TASK if task.name in aimed else 0
        for number, (prompt, response) in enumerate(drawn[: first + PER_TASK]):
            row = {"id": f"{task.name}-study-{number}", "prompt": prompt, "task": task.name}
            target.append(row) if number < first else rows.append({**row, "response": response})
    _write(directory / "target.jsonl", target)
    _write(directory / "held_out.jsonl", rows)
    with gzip.open(locate("pkg://aliquot.demo/pool.jsonl.gz"), "rt", encoding="utf-8") as file:
        pool = [json.loads(line) for line in file]
    _write(directory / "pool_merged.jsonl", [{**row, "task": row["family"]} for row in pool])
    split = ({**row, "task": f"{row['task']} {seeded('part', row['id']).randrange(PARTS)}"} for row in pool)
    _write(directory / "pool_split.jsonl", list(split))
    print(f"{len(target)} target prompts of {len(aimed)} tasks; {len(rows)} rows of {len(SKILLS)} tasks: {directory}")


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def weighed(studies: list[Study], weight: np.ndarray, number: int, budgets: list[int]) -> Study:
    """Return one study of all arms, named after their files, with questions weighed, as reports weigh them.

    The pools with other labels have the same prompts, and their models answer the same rows. Arms are told apart by
    the file in `experiments/` that their runs name.
    """
    cells: list[Cell] = []
    for study in studies:
        files = {
            record.id: override.partition("allocation/")[2]
            for record in study.records
            for override in record.overrides
            if override.startswith("experiments=allocation/")
        }
        for cell in (cell for cell in study.cells if cell.runs[0] in files and cell.budget in budgets):
            assert all(values.shape[1] == number for values in cell.correct.values()), cell.arm.name
            cells.append(replace(cell, arm=replace(cell.arm, name=files[cell.runs[0]])))
    return replace(studies[0], cells=reweighed(cells, weight), base={})


def reweighed(cells: Sequence[Cell], weight: np.ndarray) -> list[Cell]:
    """Return cells, sorted by name and budget, whose plain means over questions are the weighted ones."""
    centers: dict[str, float] = {}
    found: list[Cell] = []
    for cell in cells:
        moved: dict[str, np.ndarray] = {}
        for name, values in cell.correct.items():
            center = centers.setdefault(name, float(np.mean(weight * values[0])))
            moved[name] = (center + weight * (values - center)).astype(np.float32)
        found.append(replace(cell, correct=moved))
    return sorted(found, key=lambda cell: (cell.arm.name, cell.budget))


def pool_counts() -> Counter[str]:
    """Return how many prompts of the demo's pool each task has."""
    with gzip.open(locate("pkg://aliquot.demo/pool.jsonl.gz"), "rt", encoding="utf-8") as file:
        return Counter(json.loads(line)["task"] for line in file)


def _is_ours(record: RunRecord) -> bool:
    return any(override.startswith("experiments=allocation/") for override in record.overrides)


def table(store: Path, data: Path, out: Path, budgets: list[int]) -> None:
    """Print every arm under every weighting and budget, and write them to results.csv and results.md."""
    studies = [study for study in read_studies(store) if any(_is_ours(record) for record in study.records)]
    if not studies:
        raise SystemExit(f"{store} has no finished run of experiments/allocation")
    main_study = max(studies, key=lambda study: len(study.cells))
    others = (study for study in studies if study is not main_study and study.benchmarks == main_study.benchmarks)
    studies = [main_study, *others]
    record = main_study.records[0]
    evaluated = next(key for name, key, _ in record.stages if name == "evaluate finetuned")
    metrics = json.loads((store / "evaluate" / evaluated / "metrics.json").read_text(encoding="utf-8"))
    tasks = metrics["tasks"]["exact_match"]
    target = [json.loads(line)["task"] for line in (data / "target.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = pool_counts()
    shares = {TASKS: None, POOL: {t: c / counts.total() for t, c in counts.items()}, TARGET: task_shares(target)}
    rows: list[dict[str, object]] = []
    for weighting, share in shares.items():
        weight = weights(tasks, len(tasks), weighting, share)
        assert weight is not None
        findings = find(weighed(studies, weight, len(tasks), budgets)).findings
        rows += [_row(weighting, finding) for finding in findings]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    tables = [(measure, weighting) for weighting in shares for measure in main_study.benchmarks]
    lines = [line for table in tables for line in _markdown(*table, rows)]
    (out / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _row(weighting: str, finding: Finding) -> dict[str, object]:
    c = finding.comparison
    about = {"measure": finding.benchmark, "weighting": weighting, "budget": finding.budget, "arm": finding.arm.name}
    seeds = {"seeds": finding.num_replicates, "score": percent(finding.score)}
    if c is None:
        return {**about, **seeds, "minus_random": "", "p": "", "p_holm": "", "seconds": finding.selection_seconds}
    difference = with_interval(points(c.difference), points_interval(c.difference))
    p_values = {"p": numbers.p_value(c.p), "p_holm": numbers.p_value(c.p_adjusted)}
    return {**about, **seeds, "minus_random": difference, **p_values, "seconds": finding.selection_seconds}


def _markdown(measure: str, weighting: str, rows: list[dict[str, object]]) -> Iterator[str]:
    """Yield the lines of one table: arms by budgets."""
    rows = [row for row in rows if (row["measure"], row["weighting"]) == (measure, weighting)]
    budgets = sorted({int(str(row["budget"])) for row in rows})
    yield from (f"## {measure}, {_WEIGHTINGS[weighting]}", "")
    yield "| arm |" + "".join(f" {budget:,}: % | minus random | p |" for budget in budgets)
    yield "|---|" + "---|---|---|" * len(budgets)
    cells = {(row["arm"], row["budget"]): row for row in rows}
    for arm in sorted({str(row["arm"]) for row in rows}, key=lambda arm: (arm != "random", arm)):
        found = (cells.get((arm, budget)) for budget in budgets)
        shown = (f" {row['score']} | {row['minus_random']} | {row['p_holm']} |" if row else " | | |" for row in found)
        yield f"| `{arm}` |" + "".join(shown)
    yield ""


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write the prompts, rows and pools of the study")
    data.add_argument("directory", type=Path)
    tables = commands.add_parser("table", help="print and write the results")
    tables.add_argument("--store", type=Path, default=Path("outputs"))
    tables.add_argument("--data", type=Path, default=Path("study"))
    tables.add_argument("--out", type=Path, default=Path("docs/results/allocation"))
    tables.add_argument("--budgets", type=int, nargs="+", default=[1000, 3000, 10_000], help="those that are finished")
    arguments = parser.parse_args()
    if arguments.command == "data":
        write_data(arguments.directory)
    else:
        table(arguments.store, arguments.data, arguments.out, arguments.budgets)


if __name__ == "__main__":
    main()
