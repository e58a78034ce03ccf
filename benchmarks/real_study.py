"""The study on a real language model: its data, its runs and its results. The design is experiments/real/DESIGN.md.

    python benchmarks/real_study.py data real_study
    python benchmarks/real_study.py tune --store outputs --data real_study
    python benchmarks/real_study.py run --store outputs --data real_study [--arms ...] [--budgets ...] [--seeds ...]
    python benchmarks/real_study.py table

`data` reads pools/flan_style.jsonl.gz of the folder that ALIQUOT_DATA names, and the model's tokenizer. `run` and
`tune` may be killed at any time: the same command continues after the last finished run, and what a run had done is
in the store. `table` needs only the file of runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import real_data
import real_runs
import real_table
from real_runs import Job

RESULTS = Path("docs/results/real")
TIER_1 = (
    "random",
    "task_diversity",
    "facility_location_last",
    "facility_location_weighted",
    "coverage_last",
    "coverage_weighted",
    "min_margin",
    "typiclust",
    "rds",
    "rds_last",
    "allocation_labels",
    "allocation_clusters",
)
BUDGETS, SEEDS = (300, 1000), (0, 1, 2, 3, 4)
#: The choice of the recipe: outside the seeds of the study, and measured on rows of its own.
TUNING_SEED, TUNING_BUDGET = 100, 300
LEARNING_RATES, EPOCHS = (5e-4, 1e-3, 2e-3), (1, 2)


def tuning_jobs() -> list[Job]:
    """Return the runs on random prompts, one for each recipe."""
    recipes = [f"finetune.learning_rate={rate} finetune.epochs={n}" for n in EPOCHS for rate in LEARNING_RATES]
    return [Job("tuning", TUNING_BUDGET, TUNING_SEED, recipe) for recipe in recipes]


def ranked(lines: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the recipes with what DESIGN.md chooses by: the mean likelihood of two weightings in %, best first."""
    scores = {
        line["overrides"]: (float(line["likelihood_tasks"]) + float(line["likelihood_pool"])) / 2 for line in lines
    }
    return [f"{score:.1f} {recipe}" for recipe, score in sorted(scores.items(), key=lambda item: -item[1])]


def write_data(directory: Path, ids: Path) -> None:
    """Write the rows of the study, and publish their ids or compare with the published ones."""
    folder = os.environ.get("ALIQUOT_DATA")
    if not folder:
        raise SystemExit("ALIQUOT_DATA is not set; name the folder that has pools/flan_style.jsonl.gz")
    rows = real_data.read(Path(folder) / "pools" / "flan_style.jsonl.gz")
    division = real_data.divide(real_data.usable(rows, real_data.token_counter()))
    real_data.write(division, directory)
    told = "as published in" if real_data.publish(division, ids) else "ids written to"
    counts = {use: len(getattr(division, use)) for use in ("pool", "held_out", "target", "tuning")}
    print(", ".join(f"{count:,} {use}" for use, count in counts.items()) + f" rows in {directory}, {told} {ids}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the commands."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = found.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write the pool and the rows that are set aside")
    data.add_argument("directory", type=Path)
    data.add_argument("--ids", type=Path, default=RESULTS / "ids.csv.gz", help="published ids of the rows")
    for name, file in (("tune", "tuning.csv"), ("run", "runs.csv")):
        command = commands.add_parser(name, help="do the runs that the file does not have")
        command.add_argument("--store", type=Path, default=Path("outputs"))
        command.add_argument("--data", type=Path, default=Path("real_study"))
        command.add_argument("--out", type=Path, default=RESULTS / file)
        command.add_argument("--set", nargs="*", default=[], help="settings of run.py, for trials of the study itself")
        if name == "run":
            command.add_argument("--arms", nargs="+", default=TIER_1)
            command.add_argument("--budgets", nargs="+", type=int, default=BUDGETS)
            command.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    table = commands.add_parser("table", help="print and write the results")
    table.add_argument("--runs", type=Path, default=RESULTS / "runs.csv")
    return found


def main() -> None:
    """Run one of the commands."""
    arguments = parser().parse_args()
    if arguments.command == "data":
        write_data(arguments.directory, arguments.ids)
    elif arguments.command == "table":
        real_table.write(arguments.runs)
    else:
        paths = (arguments.store.resolve(), arguments.data.resolve(), arguments.out.resolve())
        is_tuning = arguments.command == "tune"
        blocks = () if is_tuning else (arguments.arms, arguments.budgets, arguments.seeds)
        jobs = tuning_jobs() if is_tuning else real_runs.in_blocks(*blocks)
        failed = real_runs.run_all(jobs, *paths, arguments.set)
        if is_tuning:
            print("\n".join(ranked(real_runs.read(paths[2]))))
        if failed:
            names = ", ".join(f"{job.arm} {job.budget} {job.seed}" for job in failed)
            raise SystemExit(f"{len(failed)} of {len(jobs)} runs failed: {names}; the same command tries them again")


if __name__ == "__main__":
    main()
