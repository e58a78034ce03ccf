"""What is submitted to SLURM, without one: arrays, options, refusals."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from aliquot.launch.shared_store import doubt, file_system
from aliquot.launch.slurm import Cluster, Resources, arrays
from aliquot.launch.slurm_queue import elements
from aliquot.launch.sweep import PlannedTask
from hydra_plugins.aliquot.launchers import LocalLauncher, SlurmLauncher


def task(name, *needs):
    return PlannedTask(name, name.rpartition("-")[0], name, "run", needs, None)


def test_stages_of_one_kind_that_wait_for_the_same_are_one_array():
    tasks = [task("score-1"), task("select-1", "score-1"), task("select-2", "score-1"), task("evaluate-0")]
    tasks += [task("finetune-1", "select-1"), task("finetune-2", "select-2"), task("finetune-3", "select-1")]
    names = [[t.name for t in group] for group in arrays(tasks, 100)]
    assert names == [
        ["score-1"],
        ["select-1", "select-2"],
        ["evaluate-0"],
        ["finetune-1", "finetune-3"],
        ["finetune-2"],
    ]


def test_an_array_is_no_larger_than_the_cluster_allows():
    tasks = [task(f"finetune-{i}", "select-1") for i in range(7)]
    assert [len(group) for group in arrays(tasks, 3)] == [3, 3, 1]


def test_a_job_asks_for_a_process_a_gpu_unless_told_otherwise():
    assert Resources(gpus=4).options()["tasks_per_node"] == 4
    assert Resources(gpus=4).options()["gpus_per_node"] == 4
    assert Resources(gpus=0, processes=2).options()["tasks_per_node"] == 2
    assert "gpus_per_node" not in Resources(gpus=0).options()


def test_a_time_limit_without_room_for_a_requeue_is_refused():
    with pytest.raises(ValueError, match=r"minutes=10 .* more than 10"):
        Resources(minutes=10)


@pytest.mark.parametrize(
    ("launcher", "changed", "message"),
    [
        (LocalLauncher, {"work": 2}, r"hydra\.launcher\.work=2: .* 'work'; did you mean workers\?"),
        (LocalLauncher, {"workers": "all"}, r"hydra\.launcher\.workers=all is str; .* int or null"),
        (SlurmLauncher, {"work": 2}, r"hydra\.launcher\.work=2: .* fields are resources, .*, max_jobs"),
        (SlurmLauncher, {"wait": 2}, r"hydra\.launcher\.wait=2 is int; .* bool"),
        (SlurmLauncher, {"max_jobs": 0}, "max_jobs=0 is too small; give at least 1"),
        (SlurmLauncher, {"signal_seconds": 0}, "signal_seconds=0 is too small; give at least 1"),
        (SlurmLauncher, {"resources": {"score": {"gpu": 1}}}, r"launcher\.resources\.score\.gpu=1: .*mean gpus\?"),
        (SlurmLauncher, {"resources": {"score": {"minutes": "1h"}}}, r"score\.minutes=1h is str"),
        (SlurmLauncher, {"resources": {"score": {"minutes": 5}}}, "minutes=5 .* more than 10"),
        (SlurmLauncher, {"resources": {"score": 3}}, r"resources\.score: .* such as resources\.score\.gpus=1"),
        (SlurmLauncher, {"resources": {"train": {"gpus": 1}}}, r"resources\.train: .* those of score, .*, finetune,"),
    ],
)
def test_a_launcher_refuses_what_nothing_reads_before_it_plans(launcher, changed, message):
    with pytest.raises(ValueError, match=message):
        launcher(**{"resources": {}} | changed if launcher is SlurmLauncher else changed).launch([], 0)


def test_a_machine_without_sbatch_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="login node, or use hydra/launcher=local"):
        Cluster({}).check()


@pytest.fixture
def nodes(monkeypatch, tmp_path):
    """Stand in for sinfo: a cluster of this machine and the nodes given."""

    def name(*others):
        lines = " ".join([socket.gethostname().partition(".")[0], *others])
        (tmp_path / "sinfo").write_text(f"#!/bin/sh\nfor node in {lines}; do echo $node; done\n")
        (tmp_path / "sinfo").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return name


def test_a_store_of_this_machine_alone_is_doubted_where_there_are_other_nodes(nodes):
    nodes("n1", "n2")
    assert "below /tmp, which is usually local to a node, and n1 is another node" in doubt(Path("/tmp/store"))
    assert "/dev/shm/store is of type tmpfs" in doubt(Path("/dev/shm/store"))
    assert doubt(Path("/proc/store")) is None  # neither a kind nor a place that is doubted
    nodes()
    assert doubt(Path("/tmp/store")) is None


def test_a_file_system_is_that_of_the_deepest_mount(small_disk):
    assert file_system(small_disk / "absent" / "store") == "tmpfs"
    assert file_system(Path("/proc/self")) == "proc"


@pytest.mark.parametrize(
    ("ids", "jobs"), [("7", ["7"]), ("7_3", ["7_3"]), ("7_[1-3,6%2]", ["7_1", "7_2", "7_3", "7_6"]), ("7_[4]", ["7_4"])]
)
def test_elements_of_an_array_are_told_apart(ids, jobs):
    assert elements(ids) == jobs
