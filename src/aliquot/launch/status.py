"""The status of a sweep, from the store and, if it was submitted, from SLURM."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from aliquot.experiment.record import find_run
from aliquot.launch.display import LINES_OF_AN_ERROR, last_lines
from aliquot.launch.shared_store import REMEDY
from aliquot.launch.slurm_queue import UNFINISHED, cancel, job_states, load_jobs, node_of
from aliquot.launch.sweep import PlannedTask, Sweep, log_file, stage_directory, sweep_directory
from aliquot.launch.worker import finish
from aliquot.runtime import terminal
from aliquot.store.lease import is_held
from aliquot.store.store import Store, read_record

_STATES = ("done", "running", "waiting", "failed", "canceled")
_SECONDS_BETWEEN_LOOKS = 5.0


def task_states(store: Store, sweep: Sweep) -> dict[str, str]:
    """Return task -> done, running, waiting, failed or canceled."""
    jobs = load_jobs(store, sweep)
    by_slurm = job_states(jobs.values())
    return {task.name: _state(store, task, by_slurm.get(jobs.get(task.name, ""))) for task in sweep.tasks}


def _state(store: Store, task: PlannedTask, job_state: str | None) -> str:
    """Return the state of a task; `job_state` is None if SLURM does not know it."""
    directory = stage_directory(store, task.name)
    record = read_record(directory)
    if record is not None and record.get("depth", 0) >= task.depth:
        return "done"
    if job_state is not None:
        if job_state in UNFINISHED:
            return "running" if job_state == "RUNNING" else "waiting"
        return "canceled" if job_state == "CANCELLED" else "failed"
    if is_held(directory / "lease"):
        return "running"
    return "failed" if (directory / "error.txt").exists() else "waiting"


def show_status(store: Store, sweep: Sweep) -> None:
    """Print the counts of done, running, waiting and failed stages, the running tasks, and the reasons of failures."""
    for run in sweep.runs:  # its last stage may have been built by another sweep
        finish(store, sweep, run)
    jobs = load_jobs(store, sweep)
    states = task_states(store, sweep)
    finished = sum(find_run(store.run_directory(run.id)) is not None for run in sweep.runs)
    terminal.say(f"Sweep {sweep.id}: {finished:,} of {len(sweep.runs):,} runs are finished")
    table = Table("stage", *_STATES, box=None, pad_edge=False, header_style="dim")
    for stage, tasks in sweep.by_kind().items():
        counts = Counter(states[task.name] for task in tasks)
        table.add_row(stage, *(f"{counts[state]:,}" if counts[state] else "-" for state in _STATES))
    terminal.print_table(table)
    for task in sweep.tasks:
        log = log_file(store, sweep, task.name)
        if states[task.name] == "running":
            terminal.say(f"running  {task.title}: {last_lines(log, 1)}")
        if states[task.name] == "failed":
            terminal.say(
                f"FAILED   {task.name}, {task.title}:\n{_reason(store, sweep, task.name, jobs.get(task.name))}"
            )
    if {"failed", "canceled"} & set(states.values()):
        terminal.say(f"To retry only what failed: {sweep.command}")


def _reason(store: Store, sweep: Sweep, task: str, job: str | None) -> str:
    """Say why a task failed: in its worker's last words, else in its job's, else in SLURM's."""
    said = last_lines(log_file(store, sweep, task), LINES_OF_AN_ERROR)
    if job is None:
        return said
    outputs = sorted((sweep_directory(store, sweep.id) / "jobs").glob(f"{job}_*_log.*"))
    if not said:
        said = "\n".join(filter(None, (last_lines(file, LINES_OF_AN_ERROR) for file in outputs)))
    state = job_states([job]).get(job, "FAILED")
    if state != "FAILED":
        return f"{said}\n(job {job}: {state})"
    if not said and not outputs:
        return (
            f"job {job} ended on node {node_of(job) or '(unknown)'} before anything was written to {store.root}, which "
            f"that node does not seem to see; {REMEDY}"
        )
    return said


def wait_for_end(store: Store, sweep: Sweep) -> bool:
    """Report every start and end of a stage, until none runs or waits; tell whether all were built."""
    said: Counter[str] = Counter()
    while True:
        states = Counter(task_states(store, sweep).values())
        if states != said:
            terminal.say(", ".join(f"{states[state]:,} {state}" for state in _STATES if states[state]))
            said = states
        if not states["running"] and not states["waiting"]:
            return states["done"] == len(sweep.tasks)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def show_logs(store: Store, sweep: Sweep, task: str | None, num_lines: int) -> None:
    """Print the end of the log of one task, given by the beginning of its name, or of all that run or failed."""
    states, jobs = task_states(store, sweep), load_jobs(store, sweep)
    if task is None:
        names = [name for name, state in states.items() if state in ("running", "failed")]
    else:
        names = [known.name for known in sweep.tasks if known.name.startswith(task)] or [sweep.task(task).name]
    for name in names:
        log = log_file(store, sweep, name)
        said = last_lines(log, num_lines)
        if not said and states[name] == "failed":
            said = _reason(store, sweep, name, jobs.get(name))
        terminal.say(f"== {name}: {log}\n{said}")
    if not names:
        terminal.say("Nothing runs and nothing failed; name a task to see its log.")


def cancel_sweep(store: Store, sweep: Sweep) -> None:
    """Cancel the jobs of a sweep that are queued or running; anything they saved is kept."""
    jobs = list(load_jobs(store, sweep).values())
    states = job_states(jobs)
    unfinished: Sequence[str] = [job for job in jobs if states.get(job) in UNFINISHED]
    cancel(unfinished)
    terminal.say(f"Canceled {len(unfinished)} jobs of sweep {sweep.id}. To resume: {sweep.command}")
