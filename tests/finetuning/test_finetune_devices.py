"""Finetuning in several real processes: ours, and those that torchrun or srun would start."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from test_finetune import annotated, checkpoint_step, weights

from aliquot.config.schema import ROOT
from aliquot.finetuning.run import finetune, load_adapter, take_part
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from small_recipe import CPU, RECIPE
from tiny_model import save_tiny_model

#: The same steps on any number of devices; 6 rows are no multiple of 2 micro-batches.
STEADY = replace(RECIPE, dropout=0.0, accumulate=None, rows_per_step=6, tokens_per_batch=30)
TWO = TrainerSpec("cpu", devices=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_tiny_model(tmp_path_factory.mktemp("model"))), template="{prompt} Answer : {response}")


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory):
    return finetune(model, annotated(), STEADY, CPU, tmp_path_factory.mktemp("alone"))


def assert_close(one, other):
    """The adapters differ by the order of additions alone: far less than a step has moved them."""
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-6, err_msg=name)


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_devices_take_the_same_steps_as_one(model, alone, tmp_path, capfd):
    heard = []
    shared = finetune(model, annotated(), STEADY, TWO, tmp_path, heard.append)
    assert_close(shared, alone)
    assert heard == lines(tmp_path)
    for one, other in zip(heard, lines(alone.path.parent), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert {k: one[k] for k in ("step", "learning_rate", "tokens")} == {
            k: other[k] for k in ("step", "learning_rate", "tokens")
        }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "finetune.json", "metrics.jsonl"]
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("finetune: ") == 1
    assert "warn" not in err.lower()


#: Processes of the tests below begin as copies of this one: imports take longer than all they do.
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module", autouse=True)
def tokenizers_without_threads():
    """Threads do not live on in a copy, and tokenizers would wait for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


@pytest.fixture
def forked(monkeypatch):
    """Have processes that should begin anew begin as copies of this one, which keep what tests change."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: FORK)


def before_step(monkeypatch, action):
    """Call `action` with the number of the process and of the step, before it is taken."""
    from aliquot.finetuning.module import LoRAModule

    train = LoRAModule.training_step

    def training_step(self, batch, batch_idx):
        action(self._at.rank, batch.step)
        return train(self, batch, batch_idx)

    monkeypatch.setattr(LoRAModule, "training_step", training_step)


def wait_for_step(directory, step, processes):
    deadline = time.monotonic() + 200
    while not (directory / "metrics.jsonl").exists() or len(lines(directory)) < step:
        assert time.monotonic() < deadline
        assert all(process.is_alive() for process in processes)
        time.sleep(0.01)


def exit_codes(processes):
    for process in processes:
        process.join(200)
    return [process.exitcode for process in processes]


def as_srun_starts_it(rank, port, model, directory):
    """Train in one of two processes that know of each other through their environment alone."""
    os.environ |= {"SLURM_JOB_ID": "7", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {
        "SLURM_PROCID": str(rank),
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_LOCALID": str(rank),
    }
    arguments = (STEADY, TWO, directory)
    if rank == 0:
        finetune(model, annotated(), *arguments)
    else:
        take_part(model, annotated, *arguments, is_done=lambda: False)


def start_ranks(model, directory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = [
        FORK.Process(target=as_srun_starts_it, args=(rank, port, model, directory), daemon=True) for rank in (1, 0)
    ]
    for rank in ranks:
        rank.start()
    return ranks[::-1]


@pytest.mark.slow
@pytest.mark.parametrize(("told", "resuming"), [(0, 1), (1, 2)])
def test_whichever_process_is_told_to_end_all_save_one_step_and_any_number_go_on(
    model, alone, tmp_path, monkeypatch, told, resuming
):
    before_step(monkeypatch, lambda rank, step: time.sleep(0.1))
    ranks = start_ranks(model, tmp_path)
    wait_for_step(tmp_path, 5, ranks)
    os.kill(ranks[told].pid, signal.SIGTERM)
    assert exit_codes(ranks) == [128 + signal.SIGTERM] * 2
    assert 5 <= checkpoint_step(tmp_path) < alone.steps
    assert not (tmp_path / "launch").exists()
    monkeypatch.undo()
    if resuming == 1:
        finetune(model, annotated(), STEADY, CPU, tmp_path)
    else:
        assert exit_codes(start_ranks(model, tmp_path)) == [0, 0]
    assert_close(load_adapter(tmp_path), alone)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, alone.steps + 1))


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 1)])
def test_processes_that_we_started_end_with_us(model, alone, tmp_path, monkeypatch, forked, how, code):
    before_step(monkeypatch, lambda rank, step: time.sleep(0.1))
    ours = FORK.Process(target=finetune, args=(model, annotated(), STEADY, TWO, tmp_path))
    ours.start()
    wait_for_step(tmp_path, 4, [ours])
    os.kill(ours.pid, how)
    assert exit_codes([ours]) == [code]
    assert 4 <= checkpoint_step(tmp_path) < alone.steps
    monkeypatch.undo()
    assert_close(finetune(model, annotated(), STEADY, CPU, tmp_path), alone)


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_training_with_one_error(model, tmp_path, monkeypatch, forked):
    before_step(monkeypatch, lambda rank, step: (rank, step) == (1, 3) and os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeError, match=r"process 2 of 2 ended with exit code -9, .*run it again, with fewer"):
        finetune(model, annotated(), STEADY, TWO, tmp_path)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_error_of_one_process_is_the_error(model, tmp_path, monkeypatch, forked):
    def fail(rank, step):
        if (rank, step) == (1, 3):
            raise MemoryError("no room for step 3")

    before_step(monkeypatch, fail)
    with pytest.raises(MemoryError, match="no room for step 3"):
        finetune(model, annotated(), STEADY, TWO, tmp_path)
    with pytest.raises(ValueError, match=r"the loss is nan at step \d+; lower finetune.learning_rate"):
        finetune(model, annotated(), replace(STEADY, learning_rate=1e30), TWO, tmp_path / "explodes")


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llama", {"dropout": 0.3}),
        ("llama", {"dropout": 0.3, "gradient_checkpointing": True}),
        ("gpt2", {"dropout": 0.3, "base_dropout": True}),
        ("t5", {"dropout": 0.3}),
        ("t5", {"dropout": 0.3, "base_dropout": True}),
    ],
)
def test_any_number_of_devices_drops_the_same(tmp_path, forked, family, change, world):
    folder = save_tiny_model(tmp_path / family, family=family)
    model, rows = Model(str(folder), template="{prompt} Answer : {response}"), annotated(20)
    recipe = replace(STEADY, epochs=1, **change)
    shared = finetune(model, rows, recipe, TrainerSpec("cpu", devices=world), tmp_path / "shared")
    alone = finetune(model, rows, recipe, CPU, tmp_path / "alone")
    assert_close(shared, alone)
    steady = finetune(model, rows, replace(recipe, dropout=0.0, base_dropout=False), CPU, tmp_path / "steady")
    moved = max(float(np.abs(w - weights(alone)[name]).max()) for name, w in weights(steady).items())
    assert moved > 1e-3  # something was dropped


@pytest.mark.slow
def test_devices_without_a_row_and_encoder_decoders_take_the_same_steps(tmp_path, forked):
    t5 = Model(str(save_tiny_model(tmp_path / "t5", family="t5")), template="{prompt} Answer : {response}")
    few = replace(STEADY, rows_per_step=2, epochs=1)
    shared = finetune(t5, annotated(11), few, TrainerSpec("cpu", devices=3), tmp_path / "shared")
    assert_close(shared, finetune(t5, annotated(11), few, CPU, tmp_path / "alone"))


def test_under_srun_processes_meet_at_the_first_node_or_where_one_says():
    from aliquot.runtime.collectives import meeting_point

    srun = {"SLURM_STEP_NODELIST": "gpu[07-09,12]", "SLURM_JOB_ID": "123456"}
    assert meeting_point(srun) == "tcp://gpu07:18456"
    assert meeting_point({**srun, "MASTER_ADDR": "gpu07", "MASTER_PORT": "1"}) == "env://"


def test_only_the_first_process_begins_a_training(model, tmp_path, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="process 2 of 2 cannot begin a training, and the first has ended"):
        finetune(model, annotated(), STEADY, TWO, tmp_path)


@pytest.mark.slow
def test_an_experiment_under_torchrun_does_everything_once(tmp_path):
    wanted = ["experiments=smoke", "pool.limit=60", "budget=20", "strategy=random", "until=finetune", "tracker=none"]
    wanted += ["trainer.accelerator=cpu", "trainer.devices=2", f"store={tmp_path}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "run.py"]
    answer = subprocess.run([*torchrun, *wanted], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("finetune: LoRA rank 16, 1 x 20 rows, on 2 devices") == 2  # planned, and done
    assert answer.stderr.count("waiting for process") <= 1  # for the pool, which both read
    (record,) = tmp_path.glob("finetune/*/stage.json")
    assert not (record.parent / "launch").exists()
    assert len(list(tmp_path.glob("runs/*/results.json"))) == 1


@pytest.mark.slow
def test_rounds_under_torchrun_score_with_the_adapter_that_both_processes_trained(tmp_path):
    wanted = ["experiments=smoke", "pool.limit=60", "budget=20", "strategy=mean_entropy", "rounds=2", "until=finetune"]
    wanted += ["trainer.accelerator=cpu", "trainer.devices=2", "tracker=none", f"store={tmp_path}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "run.py"]
    answer = subprocess.run([*torchrun, *wanted], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert answer.returncode == 0, answer.stderr
    done = [len(list(tmp_path.glob(f"{stage}/*/stage.json"))) for stage in ("score", "select", "finetune")]
    assert done == [2, 2, 2]
    assert len(list(tmp_path.glob("runs/*/results.json"))) == 1


@pytest.mark.slow
def test_experts_that_read_tokens_of_all_rows_are_trained_with_dropout_on_several_devices(tmp_path, forked):
    folder = save_tiny_model(tmp_path / "experts", family="switch_transformers")
    model = Model(str(folder), template="{prompt} Answer : {response}", attention="eager")
    recipe = replace(STEADY, epochs=1, dropout=0.3, target_modules=["q", "v", "wi", "wo"])
    adapter = finetune(model, annotated(20), recipe, TWO, tmp_path / "shared")
    assert adapter.steps == 4 and np.isfinite(adapter.loss)
