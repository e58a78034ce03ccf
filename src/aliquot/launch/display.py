"""The terminal output of a sweep: the plan before it, progress and time estimates during it, results after it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aliquot.experiment import console
from aliquot.experiment.record import RunRecord
from aliquot.launch.local import TaskBoard
from aliquot.launch.plan import SweepPlan
from aliquot.launch.sweep import Sweep, log_file, sweep_directory
from aliquot.runtime import terminal
from aliquot.runtime.progress import clock
from aliquot.store.store import Store

_SECONDS_BETWEEN_LINES = 30.0
LINES_OF_AN_ERROR = 3


def show_plan(sweep: Sweep, plan: SweepPlan, cost: float) -> None:
    """Print how many stages of each kind there are, how many are done, and the time and cost of the rest."""
    terminal.say(f"Sweep {sweep.id}: {len(sweep.runs):,} experiments")
    table = Table("stage", "distinct", "done", "to do", "device time", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    for stage, num_done in plan.num_done.items():
        todo = [task for task in plan.tasks if task.stage.name == stage]
        distinct = plan.num_distinct[stage]
        table.add_row(
            stage, f"{distinct:,}", f"{num_done:,}", f"{distinct - num_done:,}", _device_time([t.seconds for t in todo])
        )
    terminal.print_table(table)
    console.show_quote(cost)


def _device_time(seconds: Sequence[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    if len(known) < len(seconds):
        return "unknown"
    return f"about {clock(sum(known))}" if known else ""


class Dashboard:
    """Shows the progress of a sweep on this machine: live on a terminal, in a log as one line at each end of a task."""

    def __init__(self, store: Store, sweep: Sweep, num_workers: int) -> None:
        self._store, self._sweep, self._num_workers = store, sweep, num_workers
        self._live = Live(console=Console(file=sys.stderr), refresh_per_second=2) if sys.stderr.isatty() else None
        self._ended: set[str] = set()
        self._spoke = time.monotonic()
        self._titles = {task.name: task.title for task in sweep.tasks}

    def __enter__(self) -> Dashboard:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, board: TaskBoard) -> None:
        """Show the current board."""
        ended = [name for name in board.seconds if name not in self._ended]
        self._ended.update(ended)
        if self._live:
            running = [
                Text(f"  {self._titles[name]}  {self._last_words(name)}", overflow="ellipsis", no_wrap=True)
                for name in board.running
            ]
            self._live.update(Group(Text(self._summary(board)), *running))
            return
        for name in ended:
            state = "FAILED after" if name in board.failed else "done in"
            self._say(f"{self._titles[name]}: {state} {clock(board.seconds[name])}; {self._summary(board)}")
        if time.monotonic() - self._spoke > _SECONDS_BETWEEN_LINES:
            for name in board.running:
                self._say(f"  {self._titles[name]}: {self._last_words(name)}")

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def _summary(self, board: TaskBoard) -> str:
        parts = [f"{board.num_done:,} of {len(board.tasks):,} stages done", f"{len(board.running)} running"]
        if board.failed:
            parts.append(f"{len(board.failed)} failed, {len(board.skipped)} cannot start")
        left = board.seconds_left(self._num_workers)
        if left:
            parts.append(f"about {clock(left)} left")
        return ", ".join(parts)

    def _last_words(self, name: str) -> str:
        return last_lines(log_file(self._store, self._sweep, name), 1)


def show_submitted(store: Store, sweep: Sweep, jobs: Mapping[str, str]) -> None:
    """Print the jobs of a sweep, and how to watch, cancel and report."""
    table = Table("stage", "jobs", "ids", box=None, pad_edge=False, header_style="dim")
    for stage, tasks in sweep.by_kind().items():
        ids = [jobs[task.name] for task in tasks]
        table.add_row(stage, f"{len(ids):,}", ids[0] if len(ids) == 1 else f"{ids[0]} ... {ids[-1]}")
    terminal.print_table(table)
    where = f" --store {shlex.quote(str(store.root))}"
    terminal.say(f"Watch         python -m aliquot status {sweep.id}{where}")
    terminal.say(f"Look inside   python -m aliquot logs {sweep.id}{where}")
    terminal.say(f"Cancel        python -m aliquot cancel {sweep.id}{where}")
    terminal.say(f"Results       python -m aliquot report {sweep.id}{where}")


def show_results(store: Store, sweep: Sweep, board: TaskBoard, runs: Sequence[RunRecord]) -> None:
    """Print the finished runs, and the failed tasks with reasons."""
    if not sweep.tasks:
        terminal.say("Everything was done already; nothing was computed.")
    if runs:
        console.show_runs(runs)
    for name in board.failed:
        log = log_file(store, sweep, name)
        terminal.say(f"\nFAILED {name}: {last_lines(log, LINES_OF_AN_ERROR)}\n       {log}")
    if board.failed:
        terminal.say(
            f"\n{len(board.failed)} stages failed and {len(board.skipped)} could not start; {len(runs):,} of "
            f"{len(sweep.runs):,} runs are finished. The same command tries again what failed: {sweep.command}"
        )
    terminal.say(f"Sweep         {sweep_directory(store, sweep.id)}/")


def last_lines(path: Path, count: int) -> str:
    """Return the last nonempty lines of a log."""
    try:
        text = path.read_bytes()[-4096:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])
