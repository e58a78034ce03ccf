"""How long a report of very many runs takes, part by part.

    python benchmarks/report.py [--arms 16] [--budgets 25] [--seeds 25] [--folder FOLDER]

The runs are made up, as in tests/report/synthetic_store.py: the files of 10,000 runs on 2,790 questions of two
benchmarks, without rankings or features, so that nothing is told of what was picked. Counted are seconds from files to
files with the files in the system's cache, imports included, and the largest resident memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))

import numpy as np
from synthetic_store import SyntheticStore, facility_location, random

PARTS = ("read_records", "studies_of", "find", "show", "write_tables", "look_at_picks", "draw_into", "write_page")
TASKS = {
    "demo_mmlu": {f"mmlu_{number}": 30 for number in range(57)},
    "demo_bbh": {f"bbh_{number}": 40 for number in range(27)},
}


def main() -> None:
    """Make the store unless it is there, and report it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in {"arms": 16, "budgets": 25, "seeds": 25}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--folder", type=Path, help="keep the store there, or use the one that is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        if not (root / "runs").exists():
            make(root, arguments.arms, arguments.budgets, arguments.seeds)
        measure(root)


def make(root: Path, arms: int, budgets: int, seeds: int) -> None:
    """Write the store: random, and facility location with as many widths as it takes."""
    store = SyntheticStore(root, TASKS)
    for budget in range(1000, 1000 * (budgets + 1), 1000):
        for seed in range(seeds):
            store.add("random", random(seed), budget, seed, accuracy=0.3 + 0.01 * budget / 1000)
            for arm in range(1, arms):
                strategy = facility_location(gamma=arm / 100)
                store.add("facility_location", strategy, budget, seed, accuracy=0.3 + 0.01 * budget / 1000 + arm / 1000)


def measure(root: Path) -> None:
    """Report the store once, and print the seconds of each part."""
    spent: dict[str, np.ndarray] = {}

    def timed(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            begun = clocks()
            try:
                return part(*arguments)
            finally:
                spent[name] = spent.get(name, 0.0) + clocks() - begun

        return run

    begun = clocks()
    from aliquot.report import command

    spent["imports"] = clocks() - begun
    for name in PARTS:
        setattr(command, name, timed(name, getattr(command, name)))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        command.report(root, (), Path(folder))
    spent["in all"] = clocks() - begun
    print(f"{'part':<16}{'wall s':>8}{'CPU s':>8}")
    for name, (wall, cpu) in spent.items():
        print(f"{name:<16}{wall:8.1f}{cpu:8.1f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def clocks() -> np.ndarray:
    """Return wall and CPU seconds, these of this process alone: figures are drawn in others."""
    return np.array([time.perf_counter(), time.process_time()])


if __name__ == "__main__":
    main()
