"""Time facility location beside what else one could use: each contestant in a process of its own, on the same pool.

    python benchmarks/facility_location.py                       # 20,000 prompts, 10,000 picks
    python benchmarks/facility_location.py --n 99000 --k 45000   # the scale of the published pool; ours alone fits

Counted is the whole job from features to selection, imports included: the kernel (the peers need the dense n x n
matrix, computed by blocks in float32), building their object, maximising. The first run of ours in a fresh environment
compiles, so it is shown apart. `f` is evaluated here in the same way for all, and `recovered` is
(f - f_random) / (f_ours - f_random). Peers are no dependency: pip install apricot-select submodlib-py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from aliquot.kernels import RBF, Embedding


def make_pool(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Clusters of Zipf-distributed sizes and uneven spread, with 2 % near-duplicates."""
    rng = np.random.default_rng(seed)
    num_clusters = max(2, n // 100)
    weight = np.arange(1, num_clusters + 1) ** -0.9
    cluster = rng.choice(num_clusters, size=n, p=weight / weight.sum())
    x = rng.normal(size=(num_clusters, d))[cluster]
    x += 0.6 * rng.gamma(2.0, 0.5, size=(n, 1)) * rng.normal(size=(n, d))
    copies = rng.choice(n, size=(2, n // 50), replace=False)
    x[copies[0]] = x[copies[1]] + 1e-3 * rng.normal(size=(n // 50, d))
    return x.astype(np.float32)


def run_ours(embedding: Embedding, k: int) -> np.ndarray:
    from aliquot.greedy.facility_location import facility_location

    return facility_location(embedding, k).indices


def run_apricot(embedding: Embedding, k: int) -> np.ndarray:
    from apricot import FacilityLocationSelection

    selector = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy")
    return np.asarray(selector.fit(dense(embedding)).ranking)


def run_submodlib(embedding: Embedding, k: int) -> np.ndarray:
    from submodlib import FacilityLocationFunction

    n = len(embedding)
    function = FacilityLocationFunction(n=n, mode="dense", sijs=dense(embedding), separate_rep=False)
    picks = function.maximize(k, optimizer="LazyGreedy", stopIfZeroGain=False, show_progress=False)
    return np.array([row for row, _ in picks])


def run_random(embedding: Embedding, k: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(embedding))[:k]


CONTESTANTS: dict[str, Callable[[Embedding, int], np.ndarray]] = {
    "random": run_random,
    "aliquot, first run": run_ours,
    "aliquot": run_ours,
    "apricot": run_apricot,
    "submodlib": run_submodlib,
}


def similarities(embedding: Embedding, columns: np.ndarray) -> np.ndarray:
    """A block of columns of w, in float32."""
    s = embedding.vectors @ embedding.vectors[columns].T
    s += embedding.bias[:, None]
    s += embedding.bias[columns]
    return np.exp2(np.minimum(s, 0, out=s), out=s)


def dense(embedding: Embedding) -> np.ndarray:
    n = len(embedding)
    w = np.empty((n, n), dtype=np.float32)
    for block in np.array_split(np.arange(n), max(1, n // 1024)):
        w[:, block] = similarities(embedding, block)
    return w


def objective(embedding: Embedding, chosen: np.ndarray) -> float:
    cover = np.zeros(len(embedding), dtype=np.float32)
    for block in np.array_split(chosen, max(1, len(chosen) // 512)):
        np.maximum(cover, similarities(embedding, block).max(axis=1), out=cover)
    return float(cover.sum(dtype=np.float64))


def run_one(name: str, n: int, k: int, d: int, gamma: float) -> None:
    """Run one contestant in this process and print its figures."""
    x = make_pool(n, d)
    wall, cpu = time.perf_counter(), time.process_time()
    embedding = RBF(gamma).embed(x)
    chosen = CONTESTANTS[name](embedding, k)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    f = objective(embedding, chosen)
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak, "f": f}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=10_000)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--gamma", type=float, default=0.25, help="kernel width, in median squared distances")
    parser.add_argument("--only", choices=CONTESTANTS, help="run one contestant, in this process")
    args = parser.parse_args()
    if args.only:
        run_one(args.only, args.n, args.k, args.d, args.gamma)
        return
    print(f"n={args.n} k={args.k} d={args.d} gamma={args.gamma}")
    print(f"{'':20}{'wall s':>9}{'CPU s':>9}{'peak GB':>9}{'f':>12}{'recovered':>11}")
    found: dict[str, dict[str, float]] = {}
    for name in CONTESTANTS:
        if name in ("apricot", "submodlib") and importlib.util.find_spec(name) is None:
            print(f"{name:20}  not installed")
            continue
        if name in ("apricot", "submodlib") and args.n > 30_000:
            print(f"{name:20}  left out: its matrix alone is {4e-9 * args.n**2:.0f} GB or more")
            continue
        command = [sys.executable, *sys.argv, "--only", name]
        with tempfile.TemporaryDirectory() as empty:
            environment = os.environ | ({"NUMBA_CACHE_DIR": empty} if name == "aliquot, first run" else {})
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        found[name] = one = json.loads(output.splitlines()[-1])
        gained = one["f"] - found["random"]["f"]
        ours = found.get("aliquot, first run", one)["f"] - found["random"]["f"]
        recovered = f"{gained / ours:11.6f}" if ours else f"{0:11.6f}"
        print(f"{name:20}{one['wall']:9.2f}{one['cpu']:9.2f}{one['peak']:9.2f}{one['f']:12.2f}{recovered}")


if __name__ == "__main__":
    main()
