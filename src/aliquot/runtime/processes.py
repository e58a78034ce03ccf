"""Several processes share one stage: a process per device, started here or by SLURM or torchrun.

In the scoring pass they need not talk to each other, because no row depends on another: each takes whole batches and
saves its own rows. In finetuning they do, and when one is lost all end. What had not been saved is done by the next
run, with as many processes as that has.
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

from aliquot.runtime.signals import interruptible, terminable

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event as EventType

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Place:
    """Which of the processes that run the same experiment together this one is.

    Args:
        rank: from 0 on.
        world: how many there are.
        local_rank: its number on its machine, which is that of its device.
        launch: the same in all processes of one launch, and in no other.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    launch: str = ""


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read off the environment what torchrun or srun says of this process; without them it is the only one.

    The number of tasks that sbatch reserves does not count: its script runs once.
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
        """Do it.

        Args:
            tell: hands something small to the process that started this one: rows that are done, a loss.
            told_to_end: to be asked after every batch; where True, to save and raise KeyboardInterrupt.
        """
        ...


def run_side_by_side(
    shares: Sequence[Share], hear: Callable[[Any], object], seconds_to_end: float | None = None
) -> None:
    """Run each share in a process of its own, which starts from nothing but what can be pickled.

    Ctrl-C and SIGTERM are for all of them: they save, end, and then so do we.

    Args:
        shares: one for each process.
        hear: takes what they tell.
        seconds_to_end: that the others have when one is lost and they depend on it, before they are killed; None lets
            them save and end.

    Raises:
        RuntimeError: a process was killed.
        Exception: the first that a process raised.
        SystemExit: SIGTERM came; the exit code says so.
    """
    context = multiprocessing.get_context("spawn")
    told, stop, failures = context.SimpleQueue(), context.Event(), context.SimpleQueue()
    threads = max(1, _num_threads() // len(shares))
    with interruptible() as interrupted, terminable() as terminated, tempfile.NamedTemporaryFile() as file:
        # Through a file: what `start` hands over itself goes through a pipe, where a child that dies early blocks us.
        pickle.dump(shares, file)
        file.flush()
        arguments = file.name, threads, told, stop, failures
        processes = [context.Process(target=_work, args=(i, *arguments), daemon=True) for i in range(len(shares))]
        # Ctrl-C reaches all processes of a terminal; those that are started while it is blocked leave it to us.
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
    """Stay until all processes have ended, looking now and then; return the number and exit code of one that failed."""
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
    look()  # they may have spoken last
    return lost or _first_lost(processes)


def _first_lost(processes: Sequence[SpawnProcess]) -> tuple[int, int] | None:
    """Return the number and exit code of a process that failed: one that was killed, before what it made fail."""
    codes = [(process.exitcode or 0, number) for number, process in enumerate(processes)]
    code, number = min(codes)
    if code == 0:
        code, number = max(codes)
    return (number, code) if code else None


def _raise_loss(number: int, code: int, world: int, failures: SimpleQueue[Exception]) -> None:
    if code > 0 and not failures.empty():
        raise failures.get()
    raise RuntimeError(
        f"process {number + 1} of {world} ended with exit code {code}, perhaps for want of memory; what was saved is "
        "kept: run it again, with fewer trainer.devices if it happens again"
    )


def _work(number: int, file: str, threads: int, told: Any, stop: Any, failures: Any) -> None:
    """Do a share in a process of its own, until told to end or left alone."""
    import torch

    from aliquot.runtime.logs import set_up_logging

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
    """Wait until the first process of our launch works on a result; return False where another run has finished it."""
    while not is_done():
        if marker.exists() and marker.read_text() == launch:
            return True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return False
