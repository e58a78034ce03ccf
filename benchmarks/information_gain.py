"""Time greedy log-determinants beside what else one could use: each contestant in a process of its own, on one pool.

    python benchmarks/information_gain.py                            # both jobs, one round
    python benchmarks/information_gain.py --rounds 3 --csv out.csv   # interleaved rounds, a line each

information gain: 20,000 prompts of 16 tokens, 2,000 picks. Nobody ships it, so the contestants are textbook loops in
numpy. Two of them would take hours: they are timed on a part of one pick, and the rest is extrapolated.
log det: one vector a prompt, 5,000 prompts, 2,500 picks. Peers build their n x n kernel, which is counted, and are no
dependency: pip install submodlib-py.

Counted is from vectors to selection, without imports. `gains` says how many times the gain of a block was computed, in
multiples of n. `f` is evaluated here in the same way for all, `recovered` is (f - f_random) / (f_ours - f_random).
"""

from __future__ import annotations

import argparse
import heapq
import importlib.util
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from contest import append, machine, run_apart

from aliquot.selection.greedy import information
from aliquot.selection.greedy.checkpoint import Workspace
from aliquot.selection.greedy.ragged import Blocks, log_det
from aliquot.types import Selection


class Job(NamedTuple):
    """A pool: n prompts of `tokens` tokens of d dimensions each, in units of sigma, of which k are chosen."""

    n: int
    k: int
    tokens: int
    d: int


class Run(NamedTuple):
    """What a contestant chose, how many gains it computed, and the share of the whole job it did."""

    chosen: np.ndarray
    gains: int
    share: float = 1.0


JOBS = {"information gain": Job(20_000, 2_000, 16, 128), "log det": Job(5_000, 2_500, 1, 128)}


def make_pool(job: Job, seed: int = 0) -> np.ndarray:
    """Prompts in clusters of Zipf-distributed sizes, (n, tokens, d); a token's rms length is 1, as sigma."""
    rng = np.random.default_rng(seed)
    num_clusters = max(2, job.n // 100)
    weight = np.arange(1, num_clusters + 1) ** -0.9
    cluster = rng.choice(num_clusters, size=job.n, p=weight / weight.sum())
    x = np.repeat(rng.normal(size=(num_clusters, job.d)).astype(np.float32)[cluster], job.tokens, axis=0)
    for block in np.array_split(x, 100):
        block += 0.6 * rng.gamma(2.0, 0.5, size=(len(block), 1)) * rng.normal(size=block.shape)
    x /= np.float32(np.sqrt(np.einsum("td,td->t", x, x).mean()))
    return x.reshape(job.n, job.tokens, job.d)


def run_ours(x: np.ndarray, k: int) -> Run:
    n, tokens, d = x.shape
    num_gains = [0]

    def counting(y: torch.Tensor) -> torch.Tensor:
        num_gains[0] += len(y)
        return log_det(y)

    information.log_det = counting
    blocks = Blocks(x.reshape(-1, d), tokens * np.arange(n), np.full(n, tokens), np.ones(n))
    chosen = information.information_gain(blocks, Selection.none(), k, Workspace(), "aliquot").indices
    return Run(chosen, num_gains[0])


def run_lazy_loop(x: np.ndarray, k: int) -> Run:
    """Lazy greedy as the textbook has it: a heap of old gains, one candidate at a time."""
    a, eye, num_gains, chosen = np.eye(x.shape[2]), np.eye(x.shape[1]), len(x), []

    def gain(row: int, whiten: np.ndarray) -> float:
        y = x[row] @ whiten
        return float(np.linalg.slogdet(eye + y @ y.T)[1])

    heap = [(-gain(row, a), row, 0) for row in range(len(x))]
    heapq.heapify(heap)
    whiten = a
    while len(chosen) < k:
        _, row, seen = heapq.heappop(heap)
        if seen == len(chosen):
            chosen.append(row)
            a = a + x[row].T.astype(np.float64) @ x[row]
            whiten = np.linalg.inv(np.linalg.cholesky(a)).T
        else:
            num_gains += 1
            heapq.heappush(heap, (-gain(row, whiten), row, len(chosen)))
    return Run(np.array(chosen), num_gains)


def run_all_gains(x: np.ndarray, k: int) -> Run:
    """All gains at every pick, many in one call; one pick is done."""
    whiten, eye = np.eye(x.shape[2]), np.eye(x.shape[1])
    for block in np.array_split(x, max(1, len(x) // 64)):
        y = block @ whiten
        np.linalg.slogdet(eye + y @ y.transpose(0, 2, 1))
    return Run(np.empty(0, dtype=np.int64), len(x) * k, 1 / k)


def run_naive(x: np.ndarray, k: int) -> Run:
    """The determinant from scratch for every candidate at every pick; a tenth of one pick is done."""
    a, part = np.eye(x.shape[2]), x[: len(x) // 10]
    for block in part:
        np.linalg.slogdet(a + block.T.astype(np.float64) @ block)
    return Run(np.empty(0, dtype=np.int64), len(x) * k, len(part) / len(x) / k)


def run_map(x: np.ndarray, k: int) -> Run:
    """Fast greedy MAP inference for determinantal point processes (Chen, Zhang, Zhou 2018, algorithm 1)."""
    x = x[:, 0]
    kernel = (x @ x.T).astype(np.float64)
    n, chosen = len(x), []
    c, rest = np.zeros((k, n)), 1 + kernel.diagonal()
    for step in range(k):
        p = int(rest.argmax())
        c[step] = (kernel[p] + (np.arange(n) == p) - c[:step, p] @ c[:step]) / np.sqrt(rest[p])
        rest = rest - c[step] ** 2
        rest[p] = -np.inf
        chosen.append(p)
    return Run(np.array(chosen), n * k)


def run_rank_one(x: np.ndarray, k: int) -> Run:
    """All gains at every pick by rank-one updates of the inverse (Sherman, Morrison 1950)."""
    points = x[:, 0].astype(np.float64)
    inverse, chosen = np.eye(points.shape[1]), []
    gain = np.einsum("nd,nd->n", points, points)
    for _ in range(k):
        p = int(gain.argmax())
        u = inverse @ points[p] / np.sqrt(1 + gain[p])
        inverse -= np.outer(u, u)
        gain -= (points @ u) ** 2
        chosen.append(p)
        gain[chosen] = -np.inf
    return Run(np.array(chosen), len(x) * k)


def run_submodlib(x: np.ndarray, k: int) -> Run:
    from submodlib import LogDeterminantFunction

    x = x[:, 0]
    function = LogDeterminantFunction(n=len(x), mode="dense", lambdaVal=1.0, sijs=x @ x.T)
    picks = function.maximize(k, optimizer="LazyGreedy", stopIfZeroGain=False, show_progress=False)
    return Run(np.array([row for row, _ in picks]), 0)


def run_random(x: np.ndarray, k: int) -> Run:
    return Run(np.random.default_rng(0).permutation(len(x))[:k], 0)


CONTESTANTS: dict[str, dict[str, Callable[[np.ndarray, int], Run]]] = {
    "information gain": {
        "random": run_random,
        "aliquot": run_ours,
        "lazy loop": run_lazy_loop,
        "all gains*": run_all_gains,
        "naive*": run_naive,
    },
    "log det": {
        "random": run_random,
        "aliquot": run_ours,
        "submodlib": run_submodlib,
        "greedy MAP": run_map,
        "rank-one loop": run_rank_one,
    },
}


def run_one(job: str, name: str) -> None:
    """Run one contestant in this process and print its figures."""
    x = make_pool(JOBS[job])
    wall, cpu = time.perf_counter(), time.process_time()
    run = CONTESTANTS[job][name](x, JOBS[job].k)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    tokens = x[run.chosen].reshape(-1, x.shape[2]).astype(np.float64)
    f = float(np.linalg.slogdet(np.eye(x.shape[2]) + tokens.T @ tokens)[1])
    print(
        json.dumps({"wall_s": wall / run.share, "cpu_s": cpu / run.share, "peak_gb": peak, "f": f, "gains": run.gains})
    )


def run_job(job: str, number: int, path: Path | None) -> None:
    """Run all contestants of a job, one after the other; print a line each, and append it to the csv."""
    n, k, tokens, d = JOBS[job]
    print(f"{job}: n={n} k={k} tokens={tokens} d={d}, round {number}; * extrapolated")
    print(f"{'':16}{'wall s':>10}{'CPU s':>10}{'peak GB':>9}{'gains/n':>9}{'f':>11}{'recovered':>11}")
    found: dict[str, dict[str, float]] = {}
    for name in CONTESTANTS[job]:
        if name == "submodlib" and importlib.util.find_spec(name) is None:
            print(f"{name:16}  not installed")
            continue
        found[name] = one = run_apart("--job", job, "--only", name, quiet=True)
        ours = found.get("aliquot", one)["f"] - found["random"]["f"]
        recovered = (one["f"] - found["random"]["f"]) / ours if ours and one["f"] else 0.0
        gains = f"{one['gains'] / n:9.1f}" if one["gains"] else f"{'':9}"
        shown = f"{one['f']:11.3f}{recovered:11.6f}" if one["f"] else ""
        print(f"{name:16}{one['wall_s']:10.2f}{one['cpu_s']:10.2f}{one['peak_gb']:9.2f}{gains}{shown}", flush=True)
        if path is not None:
            task = {"job": job, "contestant": name, "n": n, "k": k, "d": d, "round": number}
            append(path, [task | one | {"recovered": recovered, "machine": machine()}])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=JOBS, help="one of the jobs only")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="append one line per contestant and round to this file")
    parser.add_argument("--only", help="run one contestant of the job, in this process")
    args = parser.parse_args()
    if args.only:
        run_one(args.job, args.only)
        return
    for number in range(1, args.rounds + 1):
        for job in [args.job] if args.job else JOBS:
            run_job(job, number, args.csv)


if __name__ == "__main__":
    main()
