"""Sweeps on this machine: the board that workers take from, and whole sweeps with real workers."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from aliquot.config.schema import ROOT
from aliquot.experiment.build import Parts, build
from aliquot.launch.local import TaskBoard, Workers
from aliquot.launch.sweep import PlannedTask
from aliquot.report.reading import read_records
from command_line import Command
from few_questions import QUESTIONS

SMALL = ("experiments=smoke", "pool.limit=300", *QUESTIONS, "tracker=none", "hydra/launcher=local")


def task(name, *needs, kind="finetune", seconds=None):
    return PlannedTask(name, kind, name, "run", needs, seconds)


def test_a_task_is_taken_only_after_all_it_needs():
    board = TaskBoard([task("a"), task("b"), task("c", "a", "b")])
    assert [board.take().name, board.take().name] == ["a", "b"]
    board.report("a", succeeded=True)
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(board.take()))
    waiting.start()
    time.sleep(0.05)
    assert not taken
    board.report("b", succeeded=True)
    waiting.join()
    assert taken[0].name == "c"


def test_a_failure_keeps_its_dependants_from_starting_and_nothing_else():
    board = TaskBoard([task("a"), task("b", "a"), task("c", "b"), task("d")])
    board.take()
    board.report("a", succeeded=False)
    assert board.take().name == "d"
    board.report("d", succeeded=True)
    assert board.take() is None
    assert board.failed == ["a"]
    assert board.skipped == ["b", "c"]
    assert board.num_done == 1


def test_time_left_follows_tasks_of_the_kind_that_are_done():
    board = TaskBoard([task("a"), task("b"), task("c"), task("d", kind="evaluate", seconds=7)])
    assert board.seconds_left(1) is None
    board.take()
    board.started["a"] -= 10
    board.report("a", succeeded=True)
    assert board.seconds_left(1) == pytest.approx(27, abs=0.1)
    assert board.seconds_left(2) == pytest.approx(13.5, abs=0.1)


def test_workers_share_the_gpus_or_the_cores_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,7")
    visible = [list(environment.values()) for environment in Workers().environments(2)]
    assert visible == [["0,1"], ["2,3"]]
    assert len(Workers().environments(1)) == 5
    assert len(Workers(3).environments(1)) == 3
    with pytest.raises(ValueError, match=r"3 workers .* of 2 devices .* 5 GPUs were found"):
        Workers(3).environments(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (alone,) = Workers().environments(1)
    assert int(alone["OMP_NUM_THREADS"]) == len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="cores found"):
        Workers(10_000).environments(1)


@pytest.fixture
def sweep(tmp_path):
    """Start a sweep with two workers as a user would."""
    environment = {**os.environ, "ALIQUOT_STORE": str(tmp_path / "store")}

    def start(*overrides):
        command = ["run.py", "-m", *SMALL, "hydra.launcher.workers=2", *overrides]
        return Command(*command, cwd=ROOT, environment=environment)

    return start


def ended(process):
    """Wait for a sweep to end; return what it said."""
    process.wait()
    return process.output() + process.errors()


@pytest.mark.slow
def test_a_sweep_equals_its_experiments_one_by_one_and_a_failure_is_tried_again(sweep, compose, run, tmp_path):
    store, grid = tmp_path / "store", ("strategy=random,min_margin", "budget=20,40")
    stages = build(Parts.of(compose(*SMALL, "strategy=random", "budget=20", f"store={tmp_path / 'keys'}"))).stages
    (failing,) = (stage.key for stage in stages if stage.name == "finetune")
    obstacle = store / "finetune" / failing / "finetune.json"
    obstacle.mkdir(parents=True)
    process = sweep(*grid)
    said = ended(process)
    assert process.returncode == 1
    assert f"FAILED finetune-{failing}" in said
    assert "Is a directory" in said
    assert "1 stages failed and 1 could not start; 3 of 4 runs are finished" in said
    assert sorted((r.strategy, r.budget) for r in read_records(store)) == [
        ("min_margin", 20),
        ("min_margin", 40),
        ("random", 40),
    ]
    obstacle.rmdir()
    process = sweep(*grid)
    said = ended(process)
    assert process.returncode == 0, said
    (file,) = (store / "sweeps").glob("*/sweep.json")
    assert [task["name"].split("-")[0] for task in json.loads(file.read_text())["tasks"]] == ["finetune", "evaluate"]
    record = next(r for r in read_records(store) if (r.strategy, r.budget) == ("min_margin", 40))
    assert run("strategy=min_margin", "budget=40", f"store={tmp_path / 'here'}") == record.mean_score()


@pytest.mark.slow
def test_a_sweep_that_ends_with_the_responses_of_an_oracle_has_them(sweep, tmp_path):
    process = sweep("strategy=random,longest", "budget=20", "until=annotate")
    said = ended(process)
    assert process.returncode == 0, said
    assert len(list((tmp_path / "store" / "annotate").glob("*/annotated.jsonl"))) == 2
    assert len(list((tmp_path / "store" / "runs").glob("*/results.json"))) == 2


@pytest.mark.slow
def test_ctrl_c_lets_the_workers_save_and_the_same_command_goes_on(sweep, tmp_path):
    store, long = (
        tmp_path / "store",
        ("strategy=random", "budget=300", "until=finetune", "finetune.epochs=15", "seed=0,1"),
    )
    process = sweep(*long)
    while len(list((store / "finetune").glob("*/metrics.jsonl"))) < 2:
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = ended(process)
    assert "to resume, run the same command again" in said
    assert len(list((store / "finetune").glob("*/checkpoint.ckpt"))) == 2
    assert not read_records(store)
    process = sweep(*long)
    said = ended(process)
    assert process.returncode == 0, said
    assert len(read_records(store)) == 2
