"""Compare the modes of facility location: time, memory, and how near to exact greedy they come.

    python benchmarks/approximate.py                       # 20,000 prompts, 2,000 picks
    python benchmarks/approximate.py --n 99000 --k 45000   # the scale of the published pool
    python benchmarks/approximate.py --million             # 1,000,000 prompts, 450,000 picks; exact is left out

Each mode runs in a process of its own, after a small ranking that imports and compiles. Counted is the way from the
features to the selection; peak memory is that of the process, with imports and features. `f` is that of
all prompts (up to 100,000, else estimated on 8,000), `ratio` is f / f_exact, `recovered` is
(f - f_random) / (f_exact - f_random), and `Jaccard` is the share of picks in common with exact.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from contest import append, machine, run_apart
from facility_location import make_pool

from aliquot.selection.greedy.approximation import mean_cover
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.greedy.modes import Distributed, Exact, Mode, Sparse, Stochastic
from aliquot.selection.kernels import RBF, Embedding
from aliquot.types import Selection

_ESTIMATED_ABOVE, _ESTIMATED_ON = 100_000, 8_000


@dataclass(frozen=True)
class Random(Mode):
    """The reference: anything."""

    nested = True

    def maximize(self, embedding: Embedding, start: Selection, k: int, workspace: Workspace) -> Selection:
        return Selection(np.random.default_rng(0).permutation(len(embedding))[:k], np.zeros(k))


MODES: dict[str, Mode] = {
    "random": Random(),
    "exact": Exact(),
    "sparse m=64": Sparse(64),
    "sparse m=64 approximate": Sparse(64, "approximate"),
    "sparse m=16": Sparse(16),
    "stochastic eps=0.1": Stochastic(0.1),
    "stochastic eps=0.01": Stochastic(0.01),
    "distributed parts=4": Distributed(4),
}
MILLION = ("random", "sparse m=64 approximate")


def run_one(name: str, n: int, k: int, d: int, gamma: float, indices: Path) -> None:
    """Run one mode in this process, print its figures and save its picks."""
    mode, x = MODES[name], make_pool(n, d)
    mode.maximize(RBF(gamma).embed(x[:1000]), Selection.none(), 100, Workspace())
    wall, cpu = time.perf_counter(), time.process_time()
    embedding = RBF(gamma).embed(x)
    chosen = mode.maximize(embedding, Selection.none(), k, Workspace()).indices
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    np.save(indices, chosen)
    rows = np.arange(n) if n <= _ESTIMATED_ABOVE else np.random.default_rng(1).choice(n, _ESTIMATED_ON, replace=False)
    f = n * mean_cover(embedding, rows, chosen)
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_gb": peak, "f": f}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=2_000)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--gamma", type=float, default=0.25, help="kernel width, in median squared distances")
    parser.add_argument("--million", action="store_true", help="n = 1,000,000, k = 450,000, d = 64")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="those to run; random and exact are references")
    parser.add_argument("--rounds", type=int, default=1, help="interleaved; the table shows medians")
    parser.add_argument("--csv", type=Path, help="append one row per run to this file")
    parser.add_argument("--only", choices=MODES, help="run one mode, in this process")
    parser.add_argument("--indices", type=Path, help="with --only: where to save its picks")
    args = parser.parse_args()
    n, k, d = (1_000_000, 450_000, 64) if args.million else (args.n, args.k, args.d)
    if args.only:
        run_one(args.only, n, k, d, args.gamma, args.indices)
        return
    names = args.modes or (MILLION if args.million else list(MODES))
    arguments = [f"--n={n}", f"--k={k}", f"--d={d}", f"--gamma={args.gamma}"]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        picks = {name: Path(folder) / f"{name}.npy" for name in names}
        for number in range(args.rounds):
            for name in names:
                found = run_apart(*arguments, "--only", name, "--indices", str(picks[name]))
                task = {"job": "approximate", "contestant": name, "n": n, "k": k, "d": d, "gamma": args.gamma}
                rows.append(task | {"round": number} | found)
        chosen = {name: set(np.load(path).tolist()) for name, path in picks.items()}
    f = {str(row["contestant"]): float(str(row["f"])) for row in rows}
    random, exact = f.get("random", np.nan), f.get("exact", np.nan)
    for row in rows:
        row |= {"recovered": (f[str(row["contestant"])] - random) / (exact - random), "machine": machine()}
    if args.csv:
        append(args.csv, rows)
    print(f"n={n} k={k} d={d} gamma={args.gamma}, {machine()}")
    heads = ("wall s", "CPU s", "peak GB", "f", "ratio", "recovered", "Jaccard")
    print(f"{'':24}" + "".join(f"{head:>12}" for head in heads))
    for name in names:
        mine = [row for row in rows if row["contestant"] == name]
        medians = [statistics.median(float(str(row[key])) for row in mine) for key in ("wall_s", "cpu_s", "peak_gb")]
        common = chosen[name] & chosen.get("exact", set())
        jaccard = len(common) / (2 * k - len(common)) if "exact" in chosen else np.nan
        figures = [f"{x:12.2f}" for x in (*medians, f[name])]
        figures += [f"{x:12.5f}" for x in (f[name] / exact, float(str(mine[0]["recovered"])), jaccard)]
        print(f"{name:24}" + "".join(figures))


if __name__ == "__main__":
    main()
