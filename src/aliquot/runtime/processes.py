"""Several processes share one stage: one process per device, started here or by SLURM or torchrun.

In the scoring pass they need not communicate, because no row depends on another: each takes whole batches and saves
its own rows. In finetuning they communicate, and if one is lost, all end. The next run does what was not saved, with
as many processes as it has.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aliquot.runtime.logs import set_up_logging
from aliquot.runtime.signals import interruptible, terminable

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event as EventType

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Place:
    """The position of this process among the processes that run one experiment together.

    Args:
        rank: starts at 0.
        world: the number of processes.
        local_rank: its number on its machine, which is also the number of its device.
        launch: an id that all processes of one launch share, and those of no other launch.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    launch: str = ""


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read from the environment what torchrun or srun says about this process; without them it is the only one.

    The number of tasks that sbatch reserves is ignored: its script runs once.
    """
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys():
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        launch = "torchrun " + " ".join(environment.get(k, "") for k in ("TORCHELASTIC_RUN_ID", "MASTER_PORT"))
    elif {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"} <= environment.keys():
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        launch = "slurm " + " ".join(environment.get(k, "") for k in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    else:
        return Place()
    rank, world, local_rank = (int(environment[name]) for name in names)
    return Place(rank, world, local_rank, launch)


class Share(Protocol):
    """A part of the work; picklable."""

    def __call__(self, tell: Callable[[Any], object], told_to_end: Callable[[], bool], /) -> None:
        """Do this part of the work.

        Args:
            tell: sends something small to the process that started this one, such as finished rows or a loss.
            told_to_end: call it after every batch; if it returns True, save and raise KeyboardInterrupt.
        """
        ...


def run_side_by_side(
    shares: Sequence[Share], hear: Callable[[Any], object], seconds_to_end: float | None = None
) -> None:
    """Run each share in its own process, which starts with nothing but what can be pickled.

    Ctrl-C and SIGTERM reach all of them: they save and end, and then this process ends.

    Args:
        shares: one per process.
        hear: takes what they tell.
        seconds_to_end: if one process is lost and the others depend on it, they have this long before they are killed;
            None lets them save and end.

    Raises:
        RuntimeError: a process was killed.
        Exception: the first one that a process raised.
        SystemExit: SIGTERM came; the exit code says so.
    """
    context = multiprocessing.get_context("spawn")
    told, stop, failures = context.SimpleQueue(), context.Event(), context.SimpleQueue()
    threads = max(1, _num_threads() // len(shares))
    with interruptible() as interrupted, terminable() as terminated, tempfile.NamedTemporaryFile() as file:
        # Through a file: `start` itself would send it through a pipe, which blocks us if the child dies early.
        pickle.dump(shares, file)
        file.flush()
        arguments = file.name, threads, told, stop, failures
        processes = [context.Process(target=_work, args=(i, *arguments), daemon=True) for i in range(len(shares))]
        # Ctrl-C reaches all processes of a terminal; those started while it is blocked ignore it and leave it to us.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for process in processes:
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

        def look() -> None:
            while not told.empty():
                hear(told.get())
            if interrupted.is_set() or terminated.is_set():
                stop.set()

        lost = _attend(processes, look, stop, seconds_to_end)
    if terminated.is_set():
        raise SystemExit(128 + signal.SIGTERM)
    if lost is not None:
        _raise_loss(*lost, len(shares), failures)
    if interrupted.is_set():
        raise KeyboardInterrupt


def _attend(
    processes: Sequence[SpawnProcess], look: Callable[[], None], stop: EventType, seconds_to_end: float | None
) -> tuple[int, int] | None:
    """Wait until all processes have ended, and poll them; return the number and exit code of one that failed."""
    lost, deadline = None, math.inf
    while running := [process for process in processes if process.is_alive()]:
        wait([process.sentinel for process in running], timeout=_SECONDS_BETWEEN_LOOKS)
        look()
        if lost is None and (lost := _first_lost(processes)):
            stop.set()
            deadline = time.monotonic() + (math.inf if seconds_to_end is None else seconds_to_end)
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
    look()  # the processes may have sent something just before they ended
    return lost or _first_lost(processes)


def _first_lost(processes: Sequence[SpawnProcess]) -> tuple[int, int] | None:
    """Return the number and exit code of a process that failed: a killed one before those it made fail."""
    codes = [(process.exitcode or 0, number) for number, process in enumerate(processes)]
    code, number = min(codes)
    if code == 0:
        code, number = max(codes)
    return (number, code) if code else None


def _raise_loss(number: int, code: int, world: int, failures: SimpleQueue[Exception]) -> None:
    if code > 0 and not failures.empty():
        raise failures.get()
    raise RuntimeError(
        f"process {number + 1} of {world} ended with exit code {code}, perhaps for lack of memory; what was saved is "
        "kept: run it again, with fewer trainer.devices if it happens again"
    )


def _work(number: int, file: str, threads: int, told: Any, stop: Any, failures: Any) -> None:
    """Do a share in a separate process, until it is told to end or the parent is gone."""
    import torch

    set_up_logging(silent=True)
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None
    try:
        share: Share = pickle.loads(Path(file).read_bytes())[number]
        share(told.put, lambda: stop.is_set() or not parent.is_alive())
    except KeyboardInterrupt:
        return
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        failures.put(error)
        raise SystemExit(1) from error


def _num_threads() -> int:
    import torch

    return torch.get_num_threads()


def wait_for_launch(marker: Path, launch: str, is_done: Callable[[], bool]) -> bool:
    """Wait until the first process of our launch works on a result; return False if another run has finished it."""
    while not is_done():
        if marker.exists() and marker.read_text() == launch:
            return True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return False
