"""Hydra's entry point for sweeps: it composes the jobs, `aliquot.launch` plans and runs them. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from aliquot.config.schema import WORKERS
from hydra_plugins.aliquot.compose import Composer

if TYPE_CHECKING:
    from aliquot.experiment.record import RunRecord
    from aliquot.launch.launcher import ComposedJob


class _SweepLauncher(Launcher):
    """Composes the jobs of a sweep."""

    _composer: Composer

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what jobs are composed from; the task function, one whole run, is not called."""
        self._composer = Composer(hydra_context.config_loader, config)

    def _jobs(self, job_overrides: Sequence[Sequence[str]]) -> list[ComposedJob]:
        from aliquot.launch.launcher import ComposedJob

        return [ComposedJob(self._composer.compose(overrides), tuple(overrides)) for overrides in job_overrides]


class LocalLauncher(_SweepLauncher):
    """Run a sweep on this machine.

    Args:
        workers: fields of `aliquot.launch.local.Workers`.
    """

    def __init__(self, **workers: Any) -> None:
        self._workers = workers

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs as one sweep; a job's value is its mean score."""
        from aliquot.launch.launcher import launch_here

        workers = _made({"_target_": "aliquot.launch.local.Workers", **self._workers})
        records = launch_here(self._jobs(job_overrides), workers)
        return [_answer(overrides, record) for overrides, record in zip(job_overrides, records, strict=True)]


class SlurmLauncher(_SweepLauncher):
    """Submit a sweep to a SLURM cluster and return.

    Args:
        cluster: fields of `aliquot.launch.slurm.Cluster`.
    """

    def __init__(self, **cluster: Any) -> None:
        self._cluster = cluster

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit all jobs as one sweep; their values are not known yet."""
        from aliquot.launch.launcher import launch_on_cluster

        resources = {
            kind: {"_target_": "aliquot.launch.slurm.Resources", **fields} if isinstance(fields, dict) else fields
            for kind, fields in self._cluster["resources"].items()
        }
        cluster = _made({"_target_": "aliquot.launch.slurm.Cluster", **self._cluster, "resources": resources})
        launch_on_cluster(self._jobs(job_overrides), cluster)
        return [_answer(overrides, None) for overrides in job_overrides]


def _made(node: dict[str, Any]) -> Any:
    """Instantiate the settings of a launcher."""
    from aliquot.config.create import make

    if "jobs" in node:
        raise ValueError(WORKERS)
    return make(node, "hydra.launcher")


def _answer(overrides: Sequence[str], record: RunRecord | None) -> JobReturn:
    """Report the mean score of a job to the sweeper, NaN if there is none."""
    answer = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    answer.return_value = record.mean_score() if record else math.nan
    return answer
