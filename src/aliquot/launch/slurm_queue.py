"""What SLURM reports about the jobs of a sweep."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from aliquot.launch.sweep import Sweep, sweep_directory
from aliquot.store.store import Store, write_atomic

_JOBS = "jobs.json"
#: Maximum size of an array if the cluster does not report one.
_MAX_ARRAY = 1000
#: States of a job that may still finish its work.
UNFINISHED = ("PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING")


def save_jobs(store: Store, sweep: Sweep, jobs: dict[str, str]) -> None:
    """Record which job builds which task."""
    write_atomic(sweep_directory(store, sweep.id) / _JOBS, json.dumps(jobs, indent=2) + "\n")


def load_jobs(store: Store, sweep: Sweep) -> dict[str, str]:
    """Return task -> job of a sweep; empty if it was never submitted."""
    file = sweep_directory(store, sweep.id) / _JOBS
    return json.loads(file.read_text()) if file.exists() else {}


def queued_jobs(store: Store, tasks: Sequence[str]) -> dict[str, str]:
    """Return task -> job for the tasks that have a queued or running job in any sweep of the store."""
    found: list[tuple[str, str]] = []
    for file in (store.root / "sweeps").glob(f"*/{_JOBS}"):
        found += [(task, job) for task, job in json.loads(file.read_text()).items() if task in tasks]
    states = job_states(job for _, job in found)
    return {task: job for task, job in found if states.get(job) in UNFINISHED}


def job_states(jobs: Iterable[str]) -> dict[str, str]:
    """Query SLURM for job states: job -> PENDING, RUNNING, COMPLETED, FAILED, ...; unknown jobs are left out."""
    wanted = set(jobs)
    if not wanted:
        return {}
    states = _accounted(wanted) | _queued()  # the queue is more current, the accounting keeps old jobs
    return {job: state for job, state in states.items() if job in wanted}


def _accounted(jobs: Iterable[str]) -> dict[str, str]:
    if shutil.which("sacct") is None:
        return {}
    arrays = sorted({job.partition("_")[0] for job in jobs})
    options = ["--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
    return _pairs(["sacct", *options, f"--jobs={','.join(arrays)}"])


def _queued() -> dict[str, str]:
    return _pairs(["squeue", "--noheader", "--array", "--me", "--states=all", "--format=%i|%T"])


def _pairs(command: list[str]) -> dict[str, str]:
    answer = subprocess.run(command, capture_output=True, text=True)
    pairs = [line.split("|") for line in answer.stdout.splitlines()]
    return {job: state.split()[0] for ids, state in pairs if state for job in elements(ids)}


def node_names() -> set[str]:
    """Return the names of the cluster's nodes; empty if SLURM does not answer."""
    answer = subprocess.run(["sinfo", "--noheader", "--Node", "--format=%N"], capture_output=True, text=True)
    return set(answer.stdout.split())


def node_of(job: str) -> str:
    """Return the nodes that a job ran on, in the notation of SLURM's accounting; "" if it does not know."""
    if shutil.which("sacct") is None:
        return ""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=NodeList", f"--jobs={job}"]
    answer = subprocess.run(command, capture_output=True, text=True)
    return "".join(name for name in answer.stdout.split() if name != "None")


def elements(ids: str) -> list[str]:
    """Return the jobs that an id stands for: those of an array that never started are listed together.

    >>> elements("7_[0-2,5%4]")
    ['7_0', '7_1', '7_2', '7_5']
    >>> elements("8_3")
    ['8_3']
    """
    array, bracket, ranges = ids.partition("_[")
    if not bracket:
        return [ids]
    found: list[str] = []
    for part in ranges.rstrip("]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        found += [f"{array}_{i}" for i in range(int(first), int(last or first) + 1)]
    return found


def max_array_size() -> int:
    """Return the maximum number of jobs in an array on this cluster."""
    answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
    sizes = [int(line.split("=")[1]) for line in answer.stdout.splitlines() if line.startswith("MaxArraySize")]
    return sizes[0] if sizes else _MAX_ARRAY


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; those that have already ended do not cause an error."""
    if jobs:
        subprocess.run(["scancel", *jobs], check=False)
