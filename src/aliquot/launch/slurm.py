"""A sweep on a SLURM cluster: one job per stage, which waits for the jobs whose results it reads.

Stages of one kind that wait for the same jobs form one array. A job runs the worker as a separate process and stays
alive next to it: before the time limit or a preemption, it lets the worker save and requeues itself.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from aliquot.config.schema import Until
from aliquot.launch.slurm_queue import cancel, max_array_size, queued_jobs, save_jobs
from aliquot.launch.sweep import PlannedTask, Sweep, sweep_directory
from aliquot.store.store import Store

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Resources:
    """The resources that a job for one kind of stage requests.

    Args:
        gpus: per node.
        processes: per node; None means one per GPU, or one. Must equal trainer.devices for stages that use several.
        cpus: per process.
        memory_gb: per node.
        minutes: the time limit; more than 10, or submitit takes every preemption for a time-out.
        nodes: per job.
        requeues: how often a job that reached its time limit is continued.
        more: further options of sbatch, such as constraint: a100.
    """

    gpus: int = 0
    processes: int | None = None
    cpus: int = 4
    memory_gb: float = 16
    minutes: int = 120
    nodes: int = 1
    requeues: int = 10
    more: Mapping[str, str | int] = field(default_factory=dict[str, str | int])

    def __post_init__(self) -> None:
        if self.minutes <= 10:
            raise ValueError(
                f"minutes={self.minutes} of a job's resources leave no time to be requeued; give more than 10"
            )

    def options(self) -> dict[str, Any]:
        """Return the parameters for submitit's executor."""
        return {
            "timeout_min": self.minutes,
            "nodes": self.nodes,
            "tasks_per_node": self.processes or max(1, self.gpus),
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory_gb,
            **({"gpus_per_node": self.gpus} if self.gpus else {}),
        }


@dataclass(frozen=True)
class Cluster:
    """Where and how jobs are submitted.

    Args:
        resources: score, select, annotate, finetune, evaluate -> the resources of their jobs.
        options: for every job, by the names of sbatch: account, partition, qos, constraint; None is left out.
        setup: shell lines before the worker, such as module load.
        max_jobs: maximum number of jobs of one array that run at once.
        signal_seconds: how long before the end a job is signaled to save.
        wait: stay until all jobs have ended, and fail if one failed.
    """

    resources: Mapping[str, Resources]
    options: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    setup: Sequence[str] = ()
    max_jobs: int = 256
    signal_seconds: int = 90
    wait: bool = False

    def __post_init__(self) -> None:
        kinds = [until.value for until in Until]
        wrong = [kind for kind in self.resources if kind not in kinds]
        wrong += [kind for kind, given in self.resources.items() if not isinstance(cast(object, given), Resources)]
        if wrong:
            raise ValueError(
                f"resources.{wrong[0]}: resources are those of {', '.join(kinds)}, each with fields of their own, such "
                "as resources.score.gpus=1"
            )
        for name in ("max_jobs", "signal_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is too small; give at least 1")

    def check(self) -> None:
        """Raise ValueError if jobs cannot be submitted from here."""
        if shutil.which("sbatch") is None:
            raise ValueError(
                "hydra/launcher=slurm submits with sbatch, which is not on this machine; run the command on a login "
                "node, or use hydra/launcher=local"
            )


class Job:
    """The process inside a job: it runs the worker and listens to SLURM.

    Args:
        store: root of the store.
        sweep: its id.
        task: the task to build.
    """

    def __init__(self, store: str, sweep: str, task: str) -> None:
        self._arguments = (store, sweep, task)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Run the worker to its end.

        Raises:
            RuntimeError: the worker failed; the job then exits with an error, and jobs that depend on it do not start.
        """
        store, sweep, task = self._arguments
        command = [sys.executable, "-m", "aliquot", "work", sweep, task, "--store", store]
        self._process = subprocess.Popen(command, env=_with_threads(), preexec_fn=_leave_preemption_to_us)
        while (code := self._process.poll()) is None:
            time.sleep(_POLL_SECONDS)
        if code:
            raise RuntimeError(f"{task} ended with exit code {code}; see `python -m aliquot logs {sweep} {task}`")

    def checkpoint(self) -> Any:
        """Let the worker save and end, and requeue the same job; submitit calls this on its signal."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            # Not wait(): the signal may have arrived in the middle of a poll, which then holds the lock.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Job(*self._arguments))


def _with_threads() -> dict[str, str]:
    """Return this environment, with as many threads as the process has CPUs: not every cluster binds it to them."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK")
    return {**(dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), cpus) if cpus else {}), **os.environ}


def _leave_preemption_to_us() -> None:
    """Ignore the preemption signal in the worker: SLURM sends it to every process of the job."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def submit(store: Store, sweep: Sweep, cluster: Cluster) -> dict[str, str]:
    """Submit a job for every task that has no queued job yet; return task -> job.

    Another sweep may be building the same stage: dependents then wait for that job.

    Raises:
        ValueError: SLURM refused a job; those it had already accepted are canceled.
    """
    from submitit.core.utils import FailedJobError

    queued = queued_jobs(store, [task.name for task in sweep.tasks])
    jobs = dict(queued)
    todo = [task for task in sweep.tasks if task.name not in jobs]
    for group in arrays(todo, max_array_size()):
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats the output of sbatch
                ids = _submit(store, sweep, cluster, group, jobs)
        except FailedJobError as error:
            cancel([job for task, job in jobs.items() if task not in queued])
            save_jobs(store, sweep, queued)
            raise ValueError(
                f"SLURM refused the jobs of {group[0].stage}: {' '.join(str(error).split())}; nothing of the sweep is "
                f"queued; change hydra.launcher.options or hydra.launcher.resources.{group[0].kind}"
            ) from error
        jobs |= zip([task.name for task in group], ids, strict=True)
        save_jobs(store, sweep, jobs)  # after every group, so that submitted jobs can be canceled
    return jobs


def arrays(tasks: Sequence[PlannedTask], largest: int) -> Iterator[Sequence[PlannedTask]]:
    """Split the tasks into arrays of one kind that wait for the same jobs; upstream first."""
    groups: dict[tuple[str, frozenset[str]], list[PlannedTask]] = {}
    for task in tasks:
        groups.setdefault((task.kind, frozenset(task.needs)), []).append(task)
    for group in groups.values():
        for start in range(0, len(group), largest):
            yield group[start : start + largest]


def _submit(
    store: Store, sweep: Sweep, cluster: Cluster, group: Sequence[PlannedTask], jobs: Mapping[str, str]
) -> list[str]:
    """Submit one array, or one job; return their ids."""
    import submitit

    resources = cluster.resources[group[0].kind]
    folder = sweep_directory(store, sweep.id) / "jobs"
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=resources.requeues)
    further: dict[str, Any] = {name: value for name, value in cluster.options.items() if value is not None}
    further |= resources.more
    if needed := [jobs[name] for name in group[0].needs]:
        further |= {"dependency": f"afterok:{':'.join(needed)}", "kill-on-invalid-dep": "yes"}
    executor.update_parameters(
        name=f"aliquot-{sweep.id}-{group[0].stage}",
        slurm_setup=list(cluster.setup),
        slurm_array_parallelism=cluster.max_jobs,
        slurm_signal_delay_s=cluster.signal_seconds,
        slurm_additional_parameters=further,
        **resources.options(),
    )
    calls = [Job(str(store.root), sweep.id, task.name) for task in group]
    if len(calls) == 1:
        return [executor.submit(calls[0]).job_id]
    with executor.batch():
        submitted = [executor.submit(call) for call in calls]
    return [job.job_id for job in submitted]
