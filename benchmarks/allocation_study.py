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
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from aliquot.demo.families import SKILLS
from aliquot.demo.families.base import Task
from aliquot.demo.words import held_out, seeded
from aliquot.store.content import locate

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


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write the prompts, rows and pools of the study")
    data.add_argument("directory", type=Path)
    write_data(parser.parse_args().directory)


if __name__ == "__main__":
    main()
