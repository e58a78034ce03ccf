"""The command line as a user meets it: help, and one clear message for each mistake."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aliquot.config import GROUPS, ROOT


def call(*arguments, cwd=ROOT, module=False, **environment):
    """Run `python run.py` (or `python -m aliquot`) and return its exit code, stdout and stderr."""
    entry = ["-m", "aliquot"] if module else [str(ROOT / "run.py")]
    done = subprocess.run(
        [sys.executable, *entry, *map(str, arguments)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def refuse(*arguments, **kwargs):
    """Return the error message of a command that must fail without a traceback."""
    code, out, err = call(*arguments, **kwargs)
    assert code in (1, 2), (code, out, err)
    assert "Traceback" not in out + err
    message = err.splitlines()[-1]
    assert message.startswith("error: "), err
    return message


def test_help_answers_fast_imports_nothing_heavy_and_names_every_choice():
    started = os.times()
    code, out, err = call("--help")
    ended = os.times()
    cpu = ended.children_user + ended.children_system - started.children_user - started.children_system
    assert (code, err) == (0, "")
    assert cpu < 1.0
    for group in GROUPS:
        for file in (ROOT / "conf" / group).glob("*.yaml"):
            assert file.stem in out
    assert "budget=45k" in out


def write_pool(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return ["pool=jsonl", f"pool.path={path}"]


GOOD = [{"id": f"r{i}", "prompt": f"Say {i}.", "response": str(i)} for i in range(5)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["strategy=best"],
            "strategy=best: no such choice; the choices are coverage, facility_location, information_gain",
        ),
        (["strategy.gama=1"], "strategy.gama: strategy has no such field; its fields are kernel"),
        (["strategi=random"], "strategi: the configuration has no such field; its fields are"),
        (["until=lunch"], "expected one of [score, select, annotate, finetune, evaluate]"),
        (["seed=often"], "could not be converted to Integer"),
        (["budget=100k"], "budget 100000 exceeds the 99000 prompts of pool 'demo'; lower budget, or use budget=all"),
        (["store=données"], """put it into double quotes inside of single ones: 'store="données"'"""),
        (["trainer=4"], "Got int; `python run.py --help` lists groups and choices"),
        (["budget=0"], "give 1 or more"),
        (["budget=-3"], "give 1 or more"),
        (["budget=plenty"], "write 45k, 1234, 50% or all"),
        (["strategy=min_margin", "scorer.max_new_tokens=0"], "set scorer.max_new_tokens"),
        (["strategy=information_gain"], "scorer=token_features"),
        (["strategy.kernel.gamma=0"], "gamma"),
        (["strategy/mode=sparse", "strategy.mode.m=0"], "m=0 keeps no neighbour"),
        (["strategy/mode=stochastic", "strategy.mode.eps=2"], "eps=2 is outside (0, 1)"),
        (["strategy/mode=distributed", "strategy.mode.parts=0"], "use 2 or more"),
        (["strategy=mean_entropy", "strategy.residualize=all"], "use one of none, response, prompt, both"),
        (["pool=jsonl"], "pool needs pool.path"),
        (["pool=jsonl", "pool.path=nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["model=hf", "model.path=./nowhere"], "model.path=./nowhere is no directory"),
        (["store=/dev/null/x"], "set store=FOLDER to one you may write to"),
        (["strategy._target_=os.system"], "only aliquot.* is instantiated"),
        (["strategy._target_=aliquot.sources.Path"], "is no class of aliquot's own"),
        (["strategy._target_=aliquot.nowhere.Strategy"], "cannot be imported"),
        (["~strategy.kernel", "~strategy.mode", "strategy._target_=aliquot.annotate.Oracle"], "is no strategy"),
        (["tracker=wandb", "tracker.tags=mine"], "must be a list: tracker.tags=[mine]"),
    ],
)
def test_a_mistake_gets_one_message_and_leaves_nothing_behind_but_the_pool(tmp_path, overrides, message):
    store = tmp_path / "store"
    assert message in refuse(f"store={store}", "tracker=none", "until=select", *overrides)
    assert {path.parent.name for path in store.glob("*/*")} <= {"pool"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD[0], "{oops\n"], "pool.jsonl:2: not a JSON object"),
        ([*GOOD, GOOD[2] | {"prompt": "Say more."}], "pool.jsonl:6: id 'r2' was already used in line 3"),
        ([GOOD[0], {"prompt": " "}], "pool.jsonl:2: the prompt is empty"),
        ([], "holds no prompts"),
    ],
)
def test_a_bad_pool_is_refused_by_file_and_line(tmp_path, rows, message):
    pool = write_pool(tmp_path / "pool.jsonl", *rows)
    assert message in refuse(f"store={tmp_path / 'store'}", "budget=1", "tracker=none", "until=select", *pool)


def test_a_pool_without_task_labels_is_told_what_stands_in_for_them(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", *GOOD)
    overrides = [f"store={tmp_path / 'store'}", "budget=1", "tracker=none", "strategy=task_diversity", *pool]
    assert "set strategy.groups=clusters" in refuse(*overrides)


def test_a_model_directory_without_weights_is_refused_before_anything_is_scored(tmp_path):
    (tmp_path / "model").mkdir()
    overrides = [f"store={tmp_path / 'store'}", "model=hf", f"model.path={tmp_path / 'model'}", "tracker=none"]
    assert "has no config.json" in refuse(*overrides)
    (tmp_path / "model" / "config.json").write_text("{}")
    assert "holds no weights (model.safetensors or " in refuse(*overrides)
    assert not list((tmp_path / "store").glob("score/*"))


def test_features_that_are_not_finite_are_counted_and_located(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    from aliquot.sources import locate

    shutil.copytree(locate("pkg://aliquot.demo/model"), tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    next(tensor for name, tensor in weights.items() if "embed" in name)[:] = torch.nan
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    pool = write_pool(tmp_path / "pool.jsonl", *GOOD)
    overrides = [f"store={tmp_path / 'store'}", "model=hf", f"model.path={tmp_path / 'model'}", "until=select"]
    message = refuse(*overrides, *pool, "model.max_tokens=256", "budget=2", "tracker=none")
    assert "features of 5 of 5 prompts hold NaN or infinity (rows 0, 1, 2, 3, 4)" in message


def test_a_full_disk_ends_with_one_message_and_nothing_half_done(small_disk):
    message = refuse(f"store={small_disk}", "budget=2k", "strategy=random", "until=annotate", "tracker=none")
    assert "no space left" in message
    assert not list(small_disk.glob("annotate/*/stage.json"))


def test_a_read_only_store_is_refused_before_any_work(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "set store=FOLDER" in refuse(f"store={small_disk}/store", "until=select", "tracker=none")


def test_a_second_process_waits_for_the_first_and_says_for_whom(tmp_path):
    command = [sys.executable, ROOT / "run.py", f"store={tmp_path}", "pool.limit=6000", "budget=10"]
    command += ["until=score", "tracker=none"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while first.poll() is None and not list(tmp_path.glob("score/*/lease")):
        time.sleep(0.02)
    second = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.wait(300) == 0
    first.communicate()
    assert second.returncode == 0, second.stderr
    assert f"waiting for process {first.pid} on" in second.stderr
    assert len(list(tmp_path.glob("score/*/stage.json"))) == 1


def test_a_pool_without_responses_is_told_so_before_anything_is_scored(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", *[{"prompt": row["prompt"]} for row in GOOD])
    message = refuse(f"store={tmp_path / 'store'}", *pool, "budget=2", "tracker=none")
    assert "no text in column 'response', so the oracle cannot annotate" in message
    assert "until=select" in message
    assert not (tmp_path / "store").exists()


def test_report_without_runs_says_where_it_looked(tmp_path):
    message = refuse("report", "--store", tmp_path, module=True)
    assert str(tmp_path) in message


def test_run_works_from_any_directory(tmp_path):
    code, out, err = call("until=select", "check=true", "tracker=none", "strategy=random", cwd=tmp_path)
    assert code == 0, err
    assert "Nothing was done" in out
    assert [path.name for path in Path(tmp_path).glob("outputs/*")] == ["pool"]
