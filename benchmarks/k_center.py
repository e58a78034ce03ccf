"""Time farthest-first beside what else one could use: each contestant in a process of its own, on the same pool.

    python benchmarks/k_center.py                                      # 20,000 prompts, 9,000 picks
    python benchmarks/k_center.py --n 99000 --k 45000 --csv out.csv    # a line per contestant and round is appended

Counted is from features to ranking, without imports and compilation. Those marked * cost the same at every pick and are
timed on 500 picks, the rest is extrapolated. "warm start" goes on from the first 4/9 of the picks with what that
ranking kept, as a deeper budget does; "start of others" goes on from the same picks alone. `f` is the covering radius
at the last pick, smaller is better, `recovered` is (f_random - f) / (f_random - f_ours). "plain loop" is one
matrix-vector product per pick. Peers are no dependency: pip install fpsample skmatter.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from contest import append, machine, run_apart
from facility_location import make_pool

from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.greedy.farthest_first import farthest_first

PICKS = 500  # of those that cost the same at every pick


def run_ours(x: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    return farthest_first(x, start, k)[0]


def run_in(directory: str) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    return lambda x, start, k: farthest_first(x, start, k, Workspace(Path(directory)))[0]


def run_loop(x: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    x = x - x.mean(axis=0)
    norms = np.einsum("nd,nd->n", x, x)
    nearest, chosen = np.full(len(x), np.inf, dtype=np.float32), [int(start[0])]
    while len(chosen) < k:
        row = chosen[-1]
        squared = x @ x[row]
        squared *= -2
        squared += norms
        squared += norms[row]
        np.minimum(nearest, squared, out=nearest)
        nearest[row] = -1
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def run_fpsample(x: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    from fpsample import fps_sampling

    return fps_sampling(x, k, start_idx=int(start[0])).astype(np.int64)


def run_skmatter(x: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    from skmatter.sample_selection import VoronoiFPS

    return np.asarray(VoronoiFPS(n_to_select=k, initialize=int(start[0])).fit(x).selected_idx_)


def run_random(x: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(x))[:k]


CONTESTANTS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "random": run_random,
    "aliquot": run_ours,
    "aliquot, warm start": run_ours,
    "aliquot, start of others": run_ours,
    "plain loop*": run_loop,
    "skmatter": run_skmatter,
    "fpsample*": run_fpsample,
}


def radius(x: np.ndarray, chosen: np.ndarray) -> float:
    """The largest distance of any point to its nearest chosen one."""
    x = x - x.mean(axis=0)
    norms, nearest = np.einsum("nd,nd->n", x, x), np.full(len(x), np.inf, dtype=np.float32)
    for block in np.array_split(chosen, max(1, len(chosen) // 512)):
        np.minimum(nearest, (norms[block] - 2 * (x @ x[block].T)).min(axis=1) + norms, out=nearest)
    return float(np.sqrt(max(nearest.max(), 0)))


def run_one(name: str, n: int, k: int, d: int) -> None:
    """Run one contestant in this process and print its figures."""
    x, start = make_pool(n, d), np.array([0])
    if name.startswith("aliquot"):
        run_ours(x[:500], start, 300)  # compiles
    picks, run = min(k, PICKS) if name.endswith("*") else k, CONTESTANTS[name]
    with tempfile.TemporaryDirectory() as directory:
        if name.endswith("warm start"):
            run = run_in(directory)
        if name.endswith(("warm start", "start of others")):
            start = run(x, start, max(1, k * 4 // 9))
        wall, cpu = time.perf_counter(), time.process_time()
        chosen = run(x, start, picks)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    f = radius(x, chosen) if picks == k else None
    print(json.dumps({"wall_s": wall * k / picks, "cpu_s": cpu * k / picks, "peak_gb": peak, "f": f}))


def run_round(n: int, k: int, d: int, number: int, path: Path | None) -> None:
    """Run all contestants, one after the other; print a line each, and append it to the csv."""
    print(f"k-center: n={n} k={k} d={d}, round {number}; * extrapolated from {PICKS} picks")
    print(f"{'':26}{'wall s':>10}{'CPU s':>10}{'peak GB':>9}{'f':>10}{'recovered':>11}")
    found: dict[str, dict[str, float]] = {}
    for name in CONTESTANTS:
        if name.startswith(("skmatter", "fpsample")) and importlib.util.find_spec(name.rstrip("*")) is None:
            print(f"{name:26}  not installed")
            continue
        found[name] = one = run_apart("--only", name, *f"--n {n} --k {k} --d {d}".split(), quiet=True)
        f, recovered, shown = one["f"], "", ""
        if f is not None:
            random = found["random"]["f"]
            gained = random - found.get("aliquot", one)["f"]
            recovered = (random - f) / gained if gained else 0.0
            shown = f"{f:10.4f}{recovered:11.4f}"
        print(f"{name:26}{one['wall_s']:10.2f}{one['cpu_s']:10.2f}{one['peak_gb']:9.2f}{shown}", flush=True)
        if path is not None:
            job = {"job": "k-center", "contestant": name, "n": n, "k": k, "d": d, "round": number}
            append(path, [job | one | {"recovered": recovered, "machine": machine()}])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=9_000)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="append one line per contestant and round to this file")
    parser.add_argument("--only", choices=CONTESTANTS, help="run one contestant, in this process")
    args = parser.parse_args()
    if args.only:
        run_one(args.only, args.n, args.k, args.d)
        return
    for number in range(1, args.rounds + 1):
        run_round(args.n, args.k, args.d, number, args.csv)


if __name__ == "__main__":
    main()
