"""Trouble on a real SLURM that nobody announces: workers killed with SIGKILL, a store that a node does not see."""

from __future__ import annotations

import os
import random
import signal
import socket
from functools import partial
from pathlib import Path

from cluster import tasks, wait_until

from aliquot.report.reading import read_records


def kill(task):
    """Kill the worker of a task, which is told nothing before."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"work" in words and task.encode() in words:
            os.kill(int(process.parent.name), signal.SIGKILL)


def progress(folder):
    """Count what a worker has saved of its stage: shards of a scoring pass, logged steps of a training."""
    metrics = folder / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else len(list(folder.glob("shards/*")))


def table(store):
    return [(run.id, run.base, run.finetuned) for run in read_records(store)]


def test_workers_killed_at_any_moment_and_the_same_command_again_give_the_same_table(cluster, submit, run, tmp_path):
    wanted = ["strategy=min_margin", "budget=80", "pool.limit=800", "scorer.shard_size=20"]
    wanted += ["scorer.tokens_per_batch=600", "finetune.epochs=20", "finetune.checkpoint_every=2"]
    store, alone = tmp_path / "store", tmp_path / "here"
    moments = {"score": random.randrange(1, 12), "finetune": random.randrange(1, 15)}  # of 40 each
    for stage, moment in moments.items():
        submit(*wanted)
        ((task, job),) = tasks(store, stage).items()
        folder = store / stage / task.rpartition("-")[2]
        wait_until(partial(lambda folder, moment: progress(folder) >= moment, folder, moment))
        kill(task)
        cluster.wait_for_jobs()
        assert cluster.states()[job] == "FAILED", f"{stage} had ended before it was killed"
        assert not (folder / "stage.json").exists()
        assert not read_records(store)
    submit(*wanted)
    cluster.wait_for_jobs()
    run("experiments=smoke", *wanted, f"store={alone}")
    assert table(store) == table(alone), moments
    (there,), (here,) = (list(root.glob("finetune/*/adapter/adapter_model.safetensors")) for root in (store, alone))
    assert there.read_bytes() == here.read_bytes(), moments


def test_a_store_that_a_node_does_not_see_is_named_as_the_reason(cluster, aliquot, submit, tmp_path):
    store, away = tmp_path / "store", tmp_path / "away"
    node = cluster.run("sinfo", "-h", "-N", "-o", "%N").stdout.split()[0]
    cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        submit("strategy=random", "budget=20", "until=finetune")
        store.rename(away)
    finally:
        cluster.run("scontrol", "update", f"nodename={node}", "state=resume")
    cluster.wait_for_jobs()
    away.rename(store)
    for command in ("status", "logs"):
        said = aliquot("-m", "aliquot", command)
        assert f"ended on node {node} before anything was written to {store}" in said
        assert "must be on a file system that all nodes see: give store=FOLDER, or ALIQUOT_STORE, on one" in said
    (file,) = store.glob("sweeps/*/sweep.json")
    said = aliquot("-m", "aliquot", "work", file.parent.name, "score-0", "--store", str(tmp_path / "own"), code=1)
    assert f"sweep {file.parent.name} is not in {tmp_path / 'own'} on node {socket.gethostname()}; the store" in said
    assert not (tmp_path / "own").exists()


def test_a_job_that_ends_before_its_worker_speaks_says_why(cluster, aliquot, submit):
    submit("strategy=random", "budget=20", "until=finetune", "hydra.launcher.setup=[no_such_module load cuda, exit 3]")
    cluster.wait_for_jobs()
    assert "no_such_module: command not found" in aliquot("-m", "aliquot", "status")
