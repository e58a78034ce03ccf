"""One cluster for all tests of this folder, and a way to give it sweeps."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from aliquot.config.schema import ROOT

sys.path.insert(0, str(Path(__file__).parent))
from cluster import SMALL, Cluster

from command_line import run_command

_RESOURCES = {"gpus": 0, "cpus": 1, "memory_gb": 1}


@pytest.fixture(scope="session")
def cluster():
    """A running SLURM."""
    if reason := Cluster.missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as folder:  # paths of sockets are short
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def aliquot(cluster, tmp_path):
    """Run one of aliquot's commands as a user of the cluster; return what it printed."""

    def call(*arguments, code=0):
        environment = {**os.environ, **cluster.environment, "ALIQUOT_STORE": str(tmp_path / "store")}
        answer = run_command(*arguments, cwd=ROOT, environment=environment)
        assert answer.returncode == code, answer.stdout + answer.stderr
        return answer.stdout + answer.stderr

    return call


@pytest.fixture
def submit(aliquot):
    """Submit a sweep of small experiments."""
    kinds = ("score", "select", "finetune", "evaluate")
    resources = [
        f"hydra.launcher.resources.{kind}.{name}={value}" for kind in kinds for name, value in _RESOURCES.items()
    ]
    command = ("run.py", "-m", *SMALL, "hydra/launcher=slurm", *resources)
    return lambda *overrides, code=0: aliquot(*command, *overrides, code=code)
