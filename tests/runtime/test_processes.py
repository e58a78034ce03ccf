"""One scoring pass in several real processes: ours, and those that torchrun or srun would start."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from aliquot.models.spec import Model
from aliquot.runtime.processes import Place, place, run_side_by_side
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.run import load_scores, score, score_share
from aliquot.scoring.spec import Scorer
from aliquot.types import Pool
from command_line import Command
from tiny_model import WORDS, save_tiny_model

CPU = TrainerSpec("cpu")
SCORER = Scorer(tokens_per_batch=100, shard_size=5, max_new_tokens=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_tiny_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    prompts = list(dict.fromkeys(" ".join(rng.choice(WORDS, rng.integers(2, 20))) for _ in range(80)))[:60]
    return Pool("words", [str(i) for i in range(len(prompts))], prompts)


@pytest.fixture(scope="module")
def alone(model, pool, tmp_path_factory):
    directory = tmp_path_factory.mktemp("alone")
    score(model, pool, SCORER, CPU, directory)
    return load_scores(directory)


def assert_equal(scores, other):
    for name in ("features", "prompt_lengths"):
        np.testing.assert_array_equal(getattr(scores, name), getattr(other, name))
    for name in ("lengths", "entropy", "top1", "top2"):
        np.testing.assert_array_equal(getattr(scores.tokens, name), getattr(other.tokens, name))


def leave_shards(model, pool, directory):
    """Have a pass cut off after three batches."""

    class CutOff(TrainerSpec):
        def build(self, directory, device=0, **kwargs):
            return super().build(directory, device, limit_predict_batches=3, **kwargs)

    with pytest.raises(AssertionError, match="ended early"):
        score(model, pool, SCORER, CutOff("cpu"), directory)
    return {path.name: path.read_bytes() for path in (directory / "shards").glob("*.npz")}


@pytest.mark.slow
def test_two_processes_go_on_from_one_and_find_the_same_to_the_last_bit(model, pool, alone, tmp_path, capfd):
    before = leave_shards(model, pool, tmp_path)
    rows = sum(len(np.load(tmp_path / "shards" / name)["rows"]) for name in before)
    assert 0 < rows < len(pool)
    capfd.readouterr()
    score(model, pool, SCORER, replace(CPU, devices=2), tmp_path)
    assert_equal(load_scores(tmp_path), alone)
    assert not (tmp_path / "shards").exists()
    out, err = capfd.readouterr()
    assert out == ""
    assert "60/60 prompts" in err  # one count for both


def noted(path, count, told_to_end):
    """A share that leaves its process id behind."""
    path.write_text(str(os.getpid()))
    count(1)


def failing(count, told_to_end):
    raise ValueError("prompt 7 is bad; drop it")


def killed(count, told_to_end):
    os.kill(os.getpid(), 9)


def until_told(count, told_to_end):
    while not told_to_end():
        pass
    raise KeyboardInterrupt


@pytest.mark.slow
def test_every_share_has_a_process_of_its_own(tmp_path):
    counted = []
    run_side_by_side([partial(noted, tmp_path / name) for name in "ab"], counted.append)
    assert len({(tmp_path / name).read_text() for name in "ab"} | {str(os.getpid())}) == 3
    assert sum(counted) == 2


@pytest.mark.slow
def test_an_error_of_one_process_is_ours_and_ends_the_others():
    with pytest.raises(ValueError, match="prompt 7 is bad; drop it"):
        run_side_by_side([until_told, failing], lambda rows: None)


@pytest.mark.slow
def test_a_process_that_was_killed_is_an_error_with_the_remedy():
    with pytest.raises(RuntimeError, match=r"process 1 of 2 ended with exit code -9, .*run it again, with fewer"):
        run_side_by_side([killed, until_told], lambda rows: None)


EXPERIMENT = """
import sys, json
from pathlib import Path
from aliquot.scoring.run import Model, TrainerSpec
from aliquot.scoring.spec import Scorer
from aliquot.pools.spec import JsonlPool
from aliquot.stages import Prepare, Score
from aliquot.store.store import Store, check_all
model, pool, scorer, store = json.loads(sys.argv[1])
stage = Score(Model(model), Prepare(JsonlPool(pool)), Scorer(**scorer), TrainerSpec("cpu", devices=2), 60)
check_all([stage])
Store(Path(store)).ensure(stage)
print(Store(Path(store)).directory(stage))
"""


@pytest.mark.slow
def test_processes_started_by_others_share_the_pass(model, pool, alone, tmp_path):
    file = tmp_path / "pool.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt, "id": i}) + "\n" for i, prompt in enumerate(pool.prompts)))
    scorer = {"tokens_per_batch": 100, "shard_size": 5, "max_new_tokens": 3}
    arguments = json.dumps([model.path, str(file), scorer, str(tmp_path / "store")])
    common = {**os.environ, "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "one", "MASTER_PORT": "1"}
    ranks = [
        Command("-c", EXPERIMENT, arguments, cwd=tmp_path, environment={**common, "RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]
    codes = [rank.wait(200) for rank in ranks]
    outputs = [(rank.output(), rank.errors()) for rank in ranks]
    assert codes == [0, 0], outputs
    (directory,) = {out.strip() for out, _ in outputs}
    assert_equal(load_scores(Path(directory)), alone)
    assert sum(err.count("score, share") for _, err in outputs) == 2  # each share once, whoever read it


@pytest.mark.slow
def test_the_first_process_does_the_share_of_one_that_never_came(model, pool, alone, tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    score(model, pool, SCORER, replace(CPU, devices=3), tmp_path)
    assert_equal(load_scores(tmp_path), alone)
    assert not list(tmp_path.glob("*.lease"))


@pytest.mark.slow
def test_a_process_that_comes_late_finds_nothing_to_do(model, pool, alone, tmp_path, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    score(model, pool, SCORER, CPU, tmp_path)
    score_share(model, pool, SCORER, replace(CPU, devices=2), tmp_path)
    assert_equal(load_scores(tmp_path), alone)
    assert not (tmp_path / "shards").exists()


def test_where_a_process_stands_is_read_off_the_environment():
    assert place({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) == Place()  # an sbatch script
    srun = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}
    assert place({**srun, "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}) == Place(3, 4, 1, "slurm 7 0")
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x", "MASTER_PORT": "5"}
    assert place({**srun, **torchrun}) == Place(1, 2, 1, "torchrun x 5")


def test_processes_and_devices_that_do_not_match_are_an_error(monkeypatch):
    with pytest.raises(ValueError, match=r"trainer.devices=2 on trainer.num_nodes=2 are 4 processes, .* started 1; "):
        TrainerSpec("cpu", devices=2, num_nodes=2).check()
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    TrainerSpec("cpu", devices=2, num_nodes=2).check()
    with pytest.raises(ValueError, match=r"trainer.devices=2 on trainer.num_nodes=1 are 2 processes, .* started 4; "):
        TrainerSpec("cpu", devices=2).check()


def test_with_one_device_there_is_nothing_to_share(monkeypatch):
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "3")):
        monkeypatch.setenv(name, value)
    CPU.check()
    assert CPU.place() == Place()
    assert replace(CPU, devices=4).place().rank == 3


def test_how_many_devices_there_are_belongs_to_no_key():
    from aliquot.pools.spec import JsonlPool
    from aliquot.stages import Prepare, Score

    one = Score(
        Model("pkg://aliquot.demo/model"), Prepare(JsonlPool("pkg://aliquot.demo/pool.jsonl.gz")), SCORER, CPU, 1
    )
    several = replace(one, trainer=TrainerSpec("cpu", devices=8, num_nodes=2))
    assert one.key == several.key
    assert several.title() == f"{one.title()}, on 16 devices"


def large(payload, count, told_to_end):
    """A share that is more than a pipe holds."""
    count(len(payload))


@pytest.mark.slow
def test_a_large_share_reaches_its_process():
    counted = []
    run_side_by_side([partial(large, b"x" * 2**20)], counted.append)
    assert sum(counted) == 2**20
