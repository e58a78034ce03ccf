"""Time facility location beside what else one could use: each contestant in a process of its own, on the same pool.

    python benchmarks/facility_location.py                       # 20,000 prompts, 10,000 picks
    python benchmarks/facility_location.py --n 99000 --k 45000   # the scale of the published pool; ours alone fits

Counted is the whole job from features to selection, imports included: the kernel (the peers need the dense n x n
matrix, computed by blocks in float32), building their object, maximizing. The first run of ours in a fresh environment
compiles, so it is shown apart. *Warm start* goes on to k from the first 4/9 of the picks, which are not counted.
Contestants take turns; the table has their medians. `above` is peak memory beyond imports and features. `f` is
evaluated in the same way for all, and `recovered` is (f - f_random) / (f_ours - f_random). `dense` is the rate of the
products with the pool, all that is done with each included, and its share of what this machine reaches on one large
product. Peers are no dependency: pip install apricot-select submodlib-py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from contest import COLUMNS, append, machine, run_apart

from aliquot.selection.kernels import RBF, Embedding
from aliquot.store.provenance import peak_memory_gb, reset_peak_memory

Run = Callable[[Embedding, int], np.ndarray]
_FIGURES = ("wall_s", "cpu_s", "peak_gb", "f", "recovered", "above_gb", "gflops", "share")


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


def load_ours() -> Run:
    from aliquot.selection.greedy.facility_location import facility_location

    return lambda embedding, k: facility_location(embedding, k).indices


def load_warm_start() -> Run:
    from aliquot.selection.greedy.facility_location import facility_location

    def run(embedding: Embedding, k: int) -> np.ndarray:
        start = facility_location(embedding, k * 4 // 9)
        restart_clocks()
        return facility_location(embedding, k, start=start).indices

    return run


def load_apricot() -> Run:
    from apricot import FacilityLocationSelection

    def run(embedding: Embedding, k: int) -> np.ndarray:
        selector = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy")
        return np.asarray(selector.fit(dense(embedding)).ranking)

    return run


def load_submodlib() -> Run:
    from submodlib import FacilityLocationFunction

    def run(embedding: Embedding, k: int) -> np.ndarray:
        n = len(embedding)
        function = FacilityLocationFunction(n=n, mode="dense", sijs=dense(embedding), separate_rep=False)
        picks = function.maximize(k, optimizer="LazyGreedy", stopIfZeroGain=False, show_progress=False)
        return np.array([row for row, _ in picks])

    return run


def load_random() -> Run:
    return lambda embedding, k: np.random.default_rng(0).permutation(len(embedding))[:k]


LOADERS: dict[str, Callable[[], Run]] = {
    "random": load_random,
    "aliquot, first run": load_ours,
    "aliquot": load_ours,
    "aliquot, warm start": load_warm_start,
    "apricot": load_apricot,
    "submodlib": load_submodlib,
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


def resident_gb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


clocks = [0.0, 0.0]


def restart_clocks() -> None:
    clocks[:] = time.perf_counter(), time.process_time()


def count_products() -> list[float]:
    """Let the passes of aliquot count; return [pairs multiplied, wall seconds], which grow as they run."""
    from aliquot.selection.greedy import passes as products

    counted = [0.0, 0.0]

    def counting(method: Callable[..., object], pairs: Callable[..., float]) -> Callable[..., object]:
        def run(self: products.HostPasses, *arguments: object) -> object:
            started = time.perf_counter()
            result = method(self, *arguments)
            if isinstance(result, Iterator):
                result = list(result)
            counted[0] += pairs(len(self._bias), *arguments)
            counted[1] += time.perf_counter() - started
            return result

        return run

    def units(n: int, rows: np.ndarray, *_: object) -> float:
        return n * products.UNIT * -(-len(rows) // products.UNIT)

    passes = products.HostPasses
    passes.sums = counting(passes.sums, lambda n, first, *_: (n - first) * (n - first + products.STRIP) / 2)
    passes.scan, passes.cover_by = counting(passes.scan, units), counting(passes.cover_by, units)
    return counted


def product_gflops() -> float:
    """What this machine reaches on one large square product, on all cores."""
    left, right = np.ones((2, 4096, 4096), dtype=np.float32)
    seconds: list[float] = []
    for _ in range(3):
        started = time.perf_counter()
        left @ right.T
        seconds.append(time.perf_counter() - started)
    return 2e-9 * 4096**3 / min(seconds)


def run_one(name: str, n: int, k: int, d: int, gamma: float) -> None:
    """Run one contestant in this process and print its figures."""
    x = make_pool(n, d)
    reset_peak_memory()  # making the pool takes more than choosing from it
    restart_clocks()
    run = LOADERS[name]()
    counted = count_products() if "aliquot" in name else [0.0, 0.0]
    before = resident_gb()
    embedding = RBF(gamma).embed(x)
    chosen = run(embedding, k)
    wall, cpu = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
    peak = peak_memory_gb()
    figures = {"wall_s": wall, "cpu_s": cpu, "peak_gb": peak, "above_gb": peak - before, "gflops": 0.0, "share": 0.0}
    if counted[1]:
        figures["gflops"] = 2e-9 * d * counted[0] / counted[1]
        figures["share"] = figures["gflops"] / product_gflops()
    from aliquot.selection.greedy.certificate import objective

    print(json.dumps(figures | {"f": objective(embedding, chosen)}))


def run_contestant(name: str) -> dict[str, float]:
    """Run one contestant in a process of its own, with the arguments of this one."""
    with tempfile.TemporaryDirectory() as empty:
        environment = os.environ | ({"NUMBA_CACHE_DIR": empty} if name == "aliquot, first run" else {})
        return run_apart(*sys.argv[1:], "--only", name, environment=environment)


def contestants(wanted: list[str] | None, n: int) -> list[str]:
    """Return who takes part, random and ours first: the others are measured by them."""
    names: list[str] = []
    for name in LOADERS:
        peer = name in ("apricot", "submodlib")
        if wanted and name not in (*wanted, "random", "aliquot"):
            continue
        if peer and importlib.util.find_spec(name) is None:
            print(f"{name:20}  not installed")
        elif peer and n > 30_000:
            print(f"{name:20}  left out: its matrix alone is {4e-9 * n**2:.0f} GB or more")
        else:
            names.append(name)
    return sorted(names, key=lambda name: name not in ("random", "aliquot"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=10_000)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--gamma", type=float, default=0.25, help="kernel width, in median squared distances")
    parser.add_argument("--rounds", type=int, default=1, help="how often each contestant runs, taking turns")
    parser.add_argument("--contestants", nargs="+", choices=LOADERS, help="beside random and aliquot; all if left out")
    parser.add_argument("--csv", type=Path, help="append one row per run to this file")
    parser.add_argument("--only", choices=LOADERS, help="run one contestant, in this process")
    args = parser.parse_args()
    if args.only:
        run_one(args.only, args.n, args.k, args.d, args.gamma)
        return
    job = {"job": "facility location", "n": args.n, "k": args.k, "d": args.d, "gamma": args.gamma}
    print(f"n={args.n} k={args.k} d={args.d} gamma={args.gamma}, {machine()}")
    rows: list[dict[str, object]] = []
    for turn in range(args.rounds):
        found: dict[str, dict[str, float]] = {}
        for name in contestants(args.contestants, args.n):
            found[name] = one = run_contestant(name)
            gained, ours = (found.get(who, one)["f"] - found["random"]["f"] for who in (name, "aliquot"))
            one["recovered"] = gained / ours if ours else 0.0
            rows.append(job | {"contestant": name, "round": turn, "machine": machine()} | one)
    if args.csv:
        append(args.csv, rows, (*COLUMNS, *_FIGURES[5:]))
    print(f"{'':20}" + "".join(f"{figure:>12}" for figure in _FIGURES))
    for name in dict.fromkeys(str(row["contestant"]) for row in rows):
        own = [row for row in rows if row["contestant"] == name]
        medians = (statistics.median(float(str(row[figure])) for row in own) for figure in _FIGURES)
        print(f"{name:20}" + "".join(f"{median:12.3f}" for median in medians))


if __name__ == "__main__":
    main()
