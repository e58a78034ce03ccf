"""Sweeps on a real SLURM: planned once, preempted, failing, two at a time."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from cluster import SMALL, tasks, wait_until
from safetensors.numpy import load_file

from aliquot.experiment.build import Parts, build
from aliquot.report.reading import read_records

#: A finetuning that takes long enough to be disturbed.
LONG = ("until=finetune", "strategy=random", "budget=300", "finetune.epochs=15")


def test_a_sweep_of_three_strategies_and_two_budgets_runs_to_its_end(cluster, aliquot, submit, run, tmp_path):
    said = submit("strategy=random,min_margin,facility_location", "budget=20,40")
    assert "python -m aliquot status" in said
    store = tmp_path / "store"
    assert {stage: len(tasks(store, stage)) for stage in ("score", "select", "finetune", "evaluate")} == {
        "score": 1,
        "select": 3,
        "finetune": 6,
        "evaluate": 7,
    }
    cluster.wait_for_jobs()
    runs = read_records(store)
    assert sorted((r.strategy, r.budget) for r in runs) == [
        (strategy, budget) for strategy in ("facility_location", "min_margin", "random") for budget in (20, 40)
    ]
    assert "6 of 6 runs are finished" in aliquot("-m", "aliquot", "status")
    here = run("strategy=min_margin", "budget=40", f"store={tmp_path / 'here'}")  # alone and in this process
    (there,) = [r.mean_score() for r in runs if (r.strategy, r.budget) == ("min_margin", 40)]
    assert here == there
    assert "Everything was done" in submit("strategy=random,min_margin,facility_location", "budget=20,40")


@pytest.mark.parametrize("stage", ["score", "finetune"])
def test_a_preempted_job_is_requeued_and_ends_in_the_same_result(cluster, submit, run, tmp_path, stage):
    slow, begun, result = {
        "score": (["until=score", "pool.limit=6000", "scorer.shard_size=200"], "shards/*", "features.npy"),
        "finetune": (
            [*LONG, "finetune.checkpoint_every=100000"],  # so that only what is told to end saves
            "metrics.jsonl",
            "adapter/adapter_model.safetensors",
        ),
    }[stage]
    submit(*slow)
    store = tmp_path / "store"
    ((task, job),) = tasks(store, stage).items()
    key = task.rpartition("-")[2]
    wait_until(lambda: any((store / stage / key).glob(begun)))
    cluster.run("scancel", f"--signal={signal.SIGUSR2.value}", job)
    if stage == "finetune":
        wait_until(lambda: (store / stage / key / "checkpoint.ckpt").exists())
    cluster.wait_for_jobs()
    assert cluster.states()[job] == "COMPLETED"
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", job).stdout
    run(*slow, f"store={tmp_path / 'here'}")
    there, here = ((root / stage / key / result) for root in (store, tmp_path / "here"))
    if stage == "score":  # rows that were missing are read in other batches
        np.testing.assert_allclose(np.load(there), np.load(here), rtol=1e-4, atol=1e-5)
    else:
        assert there.read_bytes() == here.read_bytes()


def test_a_failed_stage_stops_what_depends_on_it_alone_and_is_tried_again(cluster, aliquot, submit, compose, tmp_path):
    store, grid = tmp_path / "store", ["strategy=random", "budget=20,40"]
    submit(*grid, "check=true")
    assert not (store / "sweeps").exists()
    cfg = compose(*SMALL, "strategy=random", "budget=20", f"store={tmp_path / 'keys'}")
    (failing,) = (stage.key for stage in build(Parts.of(cfg)).stages if stage.name == "finetune")
    obstacle = store / "finetune" / failing / "finetune.json"
    obstacle.mkdir(parents=True)
    submit(*grid)
    cluster.wait_for_jobs()
    states = cluster.states()
    assert states[tasks(store, "finetune")[f"finetune-{failing}"]] == "FAILED"
    assert sorted(states[job] for job in tasks(store, "evaluate").values()) == ["CANCELLED", "COMPLETED", "COMPLETED"]
    assert [run.budget for run in read_records(store)] == [40]
    said = aliquot("-m", "aliquot", "status")
    assert f"FAILED   finetune-{failing}" in said
    assert "Is a directory" in said
    obstacle.rmdir()
    assert "2 of 2 runs are finished" in submit(*grid, "hydra.launcher.wait=true")
    assert len(tasks(store, "finetune")) == len(tasks(store, "evaluate")) == 1
    assert sorted(run.budget for run in read_records(store)) == [20, 40]


def test_two_sweeps_that_need_the_same_scoring_pass_share_its_job(cluster, submit, tmp_path):
    with cluster.closed():  # the first sweep's job must not end before the second is planned
        for strategy in ("min_margin", "mean_margin"):
            submit("until=select", "budget=20", f"strategy={strategy}")
    sweeps = [json.loads(file.read_text()) for file in (tmp_path / "store" / "sweeps").glob("*/jobs.json")]
    scoring = [{job for task, job in jobs.items() if task.startswith("score")} for jobs in sweeps]
    assert len(sweeps) == 2
    assert len(scoring[0]) == 1
    assert scoring[0] == scoring[1]
    cluster.wait_for_jobs()
    assert len(read_records(tmp_path / "store")) == 2


def test_two_processes_of_a_job_share_scoring_and_finetuning(cluster, submit, run, tmp_path):
    wanted = ["until=finetune", "strategy=min_margin", "budget=60", "trainer.accelerator=cpu"]
    processes = [f"hydra.launcher.resources.{kind}.processes=2" for kind in ("score", "finetune")]
    submit(*wanted, "trainer.devices=2", *processes)
    cluster.wait_for_jobs()
    store, alone = tmp_path / "store", tmp_path / "here"
    assert set(cluster.states()[job] for stage in ("score", "finetune") for job in tasks(store, stage).values()) == {
        "COMPLETED"
    }
    run(*wanted, f"store={alone}")
    (there,), (here,) = ([np.load(f) for f in root.glob("score/*/features.npy")] for root in (store, alone))
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)
    (there,), (here,) = (
        [load_file(f) for f in root.glob("finetune/*/adapter/*.safetensors")] for root in (store, alone)
    )
    assert there.keys() == here.keys()
    for name, weights in here.items():
        np.testing.assert_allclose(there[name], weights, rtol=1e-2, atol=1e-4, err_msg=name)


def test_a_canceled_sweep_leaves_no_job_and_goes_on_by_the_same_command(cluster, aliquot, submit, tmp_path):
    submit(*LONG)
    (job,) = tasks(tmp_path / "store", "finetune").values()
    wait_until(lambda: any((tmp_path / "store" / "finetune").glob("*/metrics.jsonl")))
    assert "Canceled 1 job" in aliquot("-m", "aliquot", "cancel")
    cluster.wait_for_jobs()
    assert cluster.states()[job] == "CANCELLED"
    submit(*LONG)
    cluster.wait_for_jobs()
    assert len(read_records(tmp_path / "store")) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        "hydra.launcher.options.partition=nowhere",
        "+hydra.launcher.resources.finetune.more.partition=nowhere",
    ],  # at once, later
)
def test_a_refused_submission_is_told_and_leaves_nothing_queued(cluster, aliquot, submit, tmp_path, wrong):
    before = cluster.states()
    said = submit("strategy=random,min_margin", "budget=20", wrong, code=1)
    assert "error: SLURM refused the jobs of" in said
    assert "Traceback" not in said
    cluster.wait_for_jobs()
    left = {job: state for job, state in cluster.states().items() if job not in before}
    assert set(left.values()) <= {"CANCELLED"}


def test_a_worker_with_other_software_stops_before_it_computes(cluster, aliquot, submit, tmp_path):
    submit("until=finetune", "strategy=random", "budget=20")
    cluster.wait_for_jobs()
    ((task, _),) = tasks(tmp_path / "store", "finetune").items()
    (file,) = (tmp_path / "store" / "sweeps").glob("*/sweep.json")
    planned = json.loads(file.read_text())
    planned["environment"]["libraries"]["torch"] = "1.0"
    file.write_text(json.dumps(planned))
    aliquot("-m", "aliquot", "work", file.parent.name, task, code=1)
    assert "torch" in (log := aliquot("-m", "aliquot", "logs", file.parent.name, "finetune"))
    assert "planned with 1.0" in log
