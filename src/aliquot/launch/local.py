"""A sweep on this machine: one worker per device, each building one stage at a time.

Workers are separate processes that last for the whole sweep. A stage that fails stops only the stages that depend on
it. Ctrl-C lets every worker save; repeat the command to resume.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aliquot.launch.sweep import PlannedTask, Sweep, log_file
from aliquot.launch.worker import DONE
from aliquot.selection.greedy.workers import num_cores
from aliquot.store.store import Store

#: Seconds that a worker has for saving after a request to end.
_GRACE = 120.0


@dataclass(frozen=True)
class Workers:
    """The workers of this machine.

    Args:
        workers: how many work in parallel; None means as many as the GPUs allow, or one for all cores.
    """

    workers: int | None = None

    def environments(self, num_devices: int) -> list[dict[str, str]]:
        """Return the variables to add to each worker's environment: its own GPUs, or a share of the cores.

        Args:
            num_devices: GPUs per worker.

        Raises:
            ValueError: there are too few GPUs or cores.
        """
        import torch

        num_workers = self.workers

        devices = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
        gpus = [device for device in devices.split(",") if device]
        if gpus:
            most = len(gpus) // num_devices
            if not 1 <= (num_workers or most) <= most:
                raise ValueError(
                    f"{num_workers or 1} workers (hydra.launcher.workers) of {num_devices} devices (trainer.devices) "
                    f"each were requested, but {len(gpus)} GPUs were found; lower one of them"
                )
            shares = [gpus[start : start + num_devices] for start in range(0, most * num_devices, num_devices)]
            return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares[:num_workers]]
        cores = num_cores()
        if num_workers is not None and not 1 <= num_workers <= cores:
            raise ValueError(f"hydra.launcher.workers={num_workers} asked, {cores} cores found; give 1 to {cores}")
        threads = str(cores // (num_workers or 1))
        names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
        # Waiting threads must not use up the cores of other workers.
        return [{**dict.fromkeys(names, threads), "OMP_WAIT_POLICY": "PASSIVE"} for _ in range(num_workers or 1)]


@dataclass
class TaskBoard:
    """The state of every task of a sweep; workers take tasks from it and report to it.

    Args:
        tasks: upstream first.
    """

    tasks: Sequence[PlannedTask]
    started: dict[str, float] = field(default_factory=dict[str, float])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    failed: list[str] = field(default_factory=list[str])
    closed: bool = False

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = {task.name: task for task in self.tasks}
        self._unmet = {task.name: set(task.needs) & set(self._waiting) for task in self.tasks}

    def take(self) -> PlannedTask | None:
        """Wait for a task whose needs are met, and take it; return None if nothing is left to wait for."""
        with self._changed:
            while not self.closed:
                ready = next((task for name, task in self._waiting.items() if not self._unmet[name]), None)
                if ready is not None:
                    del self._waiting[ready.name]
                    self.started[ready.name] = time.monotonic()
                    return ready
                if not self.running:
                    return None
                self._changed.wait()
            return None

    def report(self, name: str, succeeded: bool) -> None:
        """Record how a task ended: its dependents may start, or never will."""
        with self._changed:
            self.seconds[name] = time.monotonic() - self.started[name]
            if succeeded:
                for unmet in self._unmet.values():
                    unmet.discard(name)
            else:
                self.failed.append(name)
            self._changed.notify_all()

    def close(self) -> None:
        """Stop handing out tasks."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    @property
    def running(self) -> list[str]:
        """Names of the tasks that are being built."""
        return [name for name in self.started if name not in self.seconds]

    @property
    def skipped(self) -> list[str]:
        """Names of the tasks that cannot start because of a failure."""
        lost = set(self.failed)
        for task in self.tasks:
            if lost & set(task.needs):
                lost.add(task.name)
        return [task.name for task in self.tasks if task.name in lost - set(self.failed)]

    @property
    def num_done(self) -> int:
        """The number of tasks built."""
        return len(self.seconds) - len(self.failed)

    def seconds_left(self, num_workers: int) -> float | None:
        """Estimate the remaining time from finished tasks of the same kind, or else from the plan; None if unknown."""
        total, ended, skipped = 0.0, dict[str, list[float]](), set(self.skipped)
        for task in self.tasks:
            if task.name in self.seconds:
                ended.setdefault(task.kind, []).append(self.seconds[task.name])
        for task in self.tasks:
            if task.name in self.seconds or task.name in skipped:
                continue
            alike = ended.get(task.kind)
            expected = sum(alike) / len(alike) if alike else task.seconds
            if expected is None:
                return None
            spent = time.monotonic() - self.started[task.name] if task.name in self.started else 0.0
            total += max(expected - spent, 0.0)
        return total / num_workers


def run_tasks(
    store: Store, sweep: Sweep, environments: Sequence[dict[str, str]], show: Callable[[TaskBoard], None]
) -> TaskBoard:
    """Build all tasks of a sweep with one worker per environment; return how they ended.

    Args:
        store: the store of results.
        sweep: saved in the store.
        environments: variables of each worker, added to this process's own: its visible device and number of threads.
        show: called about every second, and at the end.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; all workers have saved and ended.
    """
    board = TaskBoard(sweep.tasks)
    workers = [_Worker(store, sweep, environment) for environment in environments]
    threads = [threading.Thread(target=worker.work_on, args=(board,), daemon=True) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(1.0) if threads[0].is_alive() else time.sleep(0.2)
            show(board)
    except BaseException:
        board.close()
        for worker in workers:
            worker.interrupt()
        for thread in threads:
            thread.join(_GRACE)
        raise
    finally:
        for worker in workers:
            worker.stop()
    show(board)
    return board


class _Worker:
    """A process that builds tasks; started when needed, and restarted after it dies."""

    def __init__(self, store: Store, sweep: Sweep, environment: dict[str, str]) -> None:
        self._store, self._sweep, self._environment = store, sweep, environment
        self._process: subprocess.Popen[str] | None = None

    def work_on(self, board: TaskBoard) -> None:
        """Take tasks until none are left."""
        while (task := board.take()) is not None:
            board.report(task.name, self._build(task.name))

    def _build(self, name: str) -> bool:
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self._process.wait()
            with open(log_file(self._store, self._sweep, name), "a", encoding="utf-8") as log:
                log.write(f"error: the worker ended with {signal_or_code(code)} before the task was done\n")
        return answer.startswith(DONE)

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "aliquot", "work", self._sweep.id, "--store", str(self._store.root)]
        errors = Path(log_file(self._store, self._sweep, "worker"))
        errors.parent.mkdir(parents=True, exist_ok=True)
        with open(errors, "a", encoding="utf-8") as file:
            return subprocess.Popen(
                command,
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,  # Ctrl-C reaches only us, and we signal the workers
            )

    def interrupt(self) -> None:
        """Let the worker save and end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """End the worker, which is waiting for a name."""
        if self._process is not None:
            if self._process.stdin:
                self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()


def signal_or_code(code: int) -> str:
    """Describe how a process ended."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
