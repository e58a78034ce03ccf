"""The command line as a user meets it: help, and one clear message for each mistake."""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from aliquot.config.command_line import read_arguments
from aliquot.config.quoting import typed
from aliquot.config.schema import GROUPS, ROOT, Config
from command_line import Command, run_command


def call(*arguments, cwd=ROOT, module=False, **environment):
    """Run `python run.py` (or `python -m aliquot`) and return its exit code, stdout and stderr."""
    entry = ["-m", "aliquot"] if module else [ROOT / "run.py"]
    done = run_command(*entry, *arguments, cwd=cwd, environment={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


def refuse(*arguments, **kwargs):
    """Return the error message of a command that must fail without a traceback."""
    code, out, err = call(*arguments, **kwargs)
    assert code in (1, 2), (code, out, err)
    assert "Traceback" not in out + err
    message = err.splitlines()[-1]
    assert message.startswith("error: "), err
    return message


@pytest.mark.slow
def test_help_answers_fast_imports_nothing_heavy_and_names_every_choice():
    started = os.times()
    done = subprocess.run([sys.executable, ROOT / "run.py", "--help"], capture_output=True, text=True)
    ended = os.times()
    cpu = ended.children_user + ended.children_system - started.children_user - started.children_system
    out = done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert cpu < 1.0
    for setting in (field.name for field in fields(Config) if field.name not in GROUPS):
        assert f"\n  {setting} " in out
    for group in GROUPS:
        for file in (ROOT / "conf" / group).glob("*.yaml"):
            assert file.stem in out
    assert "budget=45k" in out


@pytest.fixture(scope="module")
def prepared_pool(tmp_path_factory):
    """What a store keeps of the demo pool, once some test has prepared it."""
    return tmp_path_factory.mktemp("pool")


def write_pool(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return ["pool=jsonl", f"pool.path={path}"]


GOOD = [{"id": f"r{i}", "prompt": f"Say {i}.", "response": str(i)} for i in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["strategy=best"],
            "strategy=best: no such choice; the choices are adaicl, allocation, coverage, facility_location",
        ),
        (["strategy.gama=1"], "strategy.gama: strategy has no such field; its fields are kernel"),
        (["strategi=random"], "has no such field; did you mean strategy?; its fields are budget, cost_aware"),
        (["experiment=smoke"], "did you mean experiments?"),
        (
            ["+experiment=smoke"],
            "there is no setting 'experiment', so nothing would read it; did you mean experiments=smoke?",
        ),
        (["+foo=1"], "foo=1: there is no setting 'foo'"),
        (["++foo.bar=1"], "foo={'bar': 1}: there is no setting 'foo'"),
        (["-m", "+foo=1", "strategy=random,longest"], "foo=1: there is no setting 'foo'"),
        (
            ["+strategy.foo=1"],
            "strategy.foo=1: FacilityLocation has no field 'foo'; its fields are features, normalize, kernel, mode",
        ),
        (["-m", "++strategy.kernel.gama=1,2"], "did you mean gamma?"),
        (["+strategy._partial_=true"], "has no field '_partial_'"),
        (["+hydra.foo=1"], "hydra.foo: Hydra has no such setting"),
        (["+experiments=smoke"], "type it without +: experiments=smoke"),
        (["++experiments=smoke"], "type it without ++: experiments=smoke"),
        (["strategy=random", "strategy/kernel=rbf"], "what you chose for strategy has no such part"),
        (
            ["~evaluate"],
            "evaluate was removed (~evaluate?), but every run needs one; to stop before it is needed: until=finetune",
        ),
        (["~tracker"], "to run without a mirror: tracker=none"),
        (["-m", "~strategy", "seed=1,2"], "strategy was removed"),
        (["~seed"], "seed was removed"),
        (["~strategy=longest"], "~strategy=longest: strategy is not the current choice; leave it out"),
        (["seed=1", "--cfg"], "--cfg needs job, hydra or all after it"),
        (["-c", "seed=1"], "-c needs job, hydra or all after it"),
        (["seed=1", "--config-dir"], "--config-dir needs a value after it"),
        (["~strategy.foo"], "there is no strategy.foo to remove"),
        (["~model.path"], "model.path has no value, and Model needs one"),
        (["--config-name=smoke"], "type experiments=smoke;"),
        (["-cn", "min_margin_20k"], "type experiments=paper/min_margin_20k;"),
        (["--config-path", "/tmp"], "one root, conf/config.yaml"),
        (["--budget=10"], "settings have no dashes; type budget=10"),
        (["--check"], "type check=true"),
        (["--multirn"], "did you mean --multirun?"),
        (["random"], "settings are typed NAME=VALUE; did you mean strategy=random?"),
        (["strategy=random,k_center"], "for a sweep add -m; for one run type one choice: strategy=random"),
        (["hydra.job.chdir=true"], "would run in another folder"),
        (["-m", "hydra.job.chdir=true", "seed=1,2"], "would run in another folder"),
        (["-m", "hydra/launcher=basic", "hydra.job.chdir=true", "seed=1,2"], "would run in another folder"),
        (["hydra.launcher.jobs=2"], "is now hydra.launcher.workers"),
        (["+hydra.launcher.jobs=2"], "is now hydra.launcher.workers"),
        (["-m", "hydra.launcher.jobs=2", "seed=1,2"], "is now hydra.launcher.workers"),
        (["-m", "++hydra.launcher.jobs=2", "seed=1,2"], "is now hydra.launcher.workers"),
        (["-m", "hydra/launcher=slurm", "+hydra.launcher.jobs=2", "seed=1,2"], "is now hydra.launcher.workers"),
        (["-m", "hydra/launcher=slurm", "+foo=1", "seed=1,2"], "foo=1: there is no setting 'foo'"),
        (["pool=jsonl", "pool.path=12"], """type 'pool.path="12"'"""),
        (["pool=jsonl", "pool.path="], "pool.path= is empty"),
        (["store="], "store= is empty"),
        (["until=lunch"], "expected one of [score, select, annotate, finetune, evaluate]"),
        (["seed=often"], "seed=often: seed is a whole number; give one, such as seed=1"),
        (["check=maybe"], "check=maybe: check is true or false"),
        (["budget=null"], "budget=null: budget cannot be null; give a value"),
        (["budget=100k"], "budget 100000 exceeds the 99000 prompts of pool 'demo'; lower budget, or use budget=all"),
        (["store=données"], """to mean the text, type 'store="données"'"""),
        (["trainer=4"], "Got int; `python run.py --help` lists groups and choices"),
        (["budget=0"], "give 1 or more"),
        (["budget=-3"], "give 1 or more"),
        (["budget=plenty"], "write 45k, 1234, 50% or all"),
        (["strategy=min_margin", "scorer.max_new_tokens=0"], "set scorer.max_new_tokens"),
        (["strategy=information_gain"], "scorer=token_features"),
        (["strategy.kernel.gamma=0"], "gamma"),
        (["strategy/mode=sparse", "strategy.mode.m=0"], "m=0 keeps no neighbor"),
        (["strategy/mode=stochastic", "strategy.mode.eps=2"], "eps=2 is outside (0, 1)"),
        (["strategy/mode=distributed", "strategy.mode.parts=0"], "use 2 or more"),
        (["strategy=mean_entropy", "strategy.residualize=all"], "use one of none, response, prompt, both"),
        (["pool=jsonl"], "pool needs pool.path"),
        (["pool=jsonl", "pool.path=nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["model=hf", "model.path=./nowhere"], "model.path=./nowhere is not a directory"),
        (["store=/dev/null/x"], "set store=FOLDER to one you may write to"),
        (["strategy._target_=os.system"], "only aliquot.* is instantiated"),
        (["strategy._target_=aliquot.store.content.Path"], "is not a class of aliquot's own"),
        (["strategy._target_=aliquot.nowhere.Strategy"], "cannot be imported"),
        (
            [
                "strategy=random",
                "~strategy.seed",
                "strategy._target_=aliquot.annotation.annotator.Oracle",
            ],
            "is not a strategy",
        ),
        (["tracker=wandb", "tracker.tags=mine"], "must be a list: tracker.tags=[mine]"),
    ],
)
def test_a_mistake_gets_one_message_and_leaves_nothing_behind_but_the_pool(tmp_path, prepared_pool, overrides, message):
    store = tmp_path / "store"
    store.mkdir()
    (store / "pool").symlink_to(prepared_pool)  # 99,000 prompts take seconds to prepare
    assert message in refuse(f"store={store}", "tracker=none", "until=select", *overrides)
    assert {path.parent.name for path in store.glob("*/*")} <= {"pool", "multirun"}


@pytest.mark.slow
@pytest.mark.parametrize("group", ["experiments", "sweeps"])
@pytest.mark.parametrize("mode", ["RUN", "MULTIRUN"])
def test_an_old_name_in_a_file_gets_the_new_one(tmp_path, group, mode):
    (tmp_path / group).mkdir()
    hydra = {"launcher": {"jobs": 2}, "mode": mode, "sweeper": {"params": {"seed": "1,2"}}}
    (tmp_path / group / "old.yaml").write_text(f"# @package _global_\nhydra: {json.dumps(hydra)}\n")
    message = refuse("--config-dir", tmp_path, f"{group}=old", f"store={tmp_path}", "tracker=none", "until=select")
    assert "is now hydra.launcher.workers" in message


ODD_NAMES = [
    "a,b",
    "a=b",
    "a b",
    "it's",
    'a"b',
    "a[1]",
    "a(1)",
    "a{b}",
    "a$b",
    "a#b",
    "a:b",
    "~a",
    "ä",
    "a&b",
    "a\\b",
    "é'\" c",
]
ODD_NAMES += ["a${seed}b", "a\\${seed}", "%a@b!", "true", "12", "null", " a", "a',b", "glob(x)", "a;b", "x\\"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_of_any_name_is_quoted_for_the_shell_and_for_hydra(compose, name):
    words = shlex.split(typed("pool.path", name))
    assert compose("pool=jsonl", *words).pool.path == name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a,b", "a=b", "it's", 'a"b', "a[1]", "a#b", "~a", "ä", "a{b}", "é'\" c", "a&b"])
def test_a_file_name_that_hydra_reads_in_its_own_way_gets_a_line_that_says_what_to_type(tmp_path, name):
    write_pool(tmp_path / name, *GOOD)
    settings = ["pool=jsonl", "check=true", "budget=1", "tracker=none", "strategy=random", "store=s"]
    message = refuse(*settings, f"pool.path={name}", cwd=tmp_path)
    words = shlex.split(message[message.index("pool.path", len("error: pool.path")) - 1 :])
    assert len(words) == 1
    code, out, err = call(*settings, *words, cwd=tmp_path)
    assert (code, "everything is in order" in out) == (0, True), err


@pytest.mark.slow
def test_a_sweep_takes_a_comma_in_the_name_of_a_file_for_part_of_it(tmp_path):
    write_pool(tmp_path / "a,b", *GOOD)
    settings = ["pool=jsonl", "check=true", "budget=1", "tracker=none", "-m", "strategy=random,longest", "store=s"]
    message = refuse(*settings, "pool.path=a,b", cwd=tmp_path)
    assert message.endswith("""type 'pool.path="a,b"'""")
    assert call(*settings, 'pool.path="a,b"', cwd=tmp_path)[0] == 0


def test_a_blank_that_the_shell_took_apart_is_put_together(tmp_path):
    write_pool(tmp_path / "my file", *GOOD)
    assert refuse("pool=jsonl", "pool.path=my", "file", cwd=tmp_path).endswith("type 'pool.path=my file'")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_pool_without_task_labels_is_told_what_stands_in_for_them(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", *GOOD)
    overrides = [f"store={tmp_path / 'store'}", "budget=1", "tracker=none", "strategy=task_diversity", *pool]
    assert "set strategy.groups=clusters" in refuse(*overrides)


@pytest.mark.slow
def test_a_model_directory_without_weights_is_refused_before_anything_is_scored(tmp_path):
    (tmp_path / "model").mkdir()
    overrides = [f"store={tmp_path / 'store'}", "model=hf", f"model.path={tmp_path / 'model'}", "tracker=none"]
    assert "has no config.json" in refuse(*overrides)
    (tmp_path / "model" / "config.json").write_text("{}")
    assert "holds no weights (model.safetensors or " in refuse(*overrides)
    assert not list((tmp_path / "store").glob("score/*"))


@pytest.mark.slow
def test_features_that_are_not_finite_are_counted_and_located(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", *GOOD)
    overrides = [f"store={tmp_path / 'store'}", *pool, "budget=2", "tracker=none"]
    assert call(*overrides, "until=score")[0] == 0
    (file,) = (tmp_path / "store").glob("score/*/features.npy")  # in 16 bits, arithmetic may overflow
    np.save(file, np.full_like(np.load(file), np.nan))
    message = refuse(*overrides, "until=select")
    assert "features of 5 of 5 prompts hold NaN or infinity (rows 0, 1, 2, 3, 4)" in message


@pytest.mark.slow
def test_a_full_disk_ends_with_one_message_and_nothing_half_done(small_disk):
    message = refuse(f"store={small_disk}", "budget=2k", "strategy=random", "until=annotate", "tracker=none")
    assert "no space left" in message
    assert not list(small_disk.glob("annotate/*/stage.json"))


@pytest.mark.slow
def test_a_read_only_store_is_refused_before_any_work(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "set store=FOLDER" in refuse(f"store={small_disk}/store", "until=select", "tracker=none")


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_and_says_for_whom(tmp_path):
    command = [ROOT / "run.py", f"store={tmp_path}", "pool.limit=6000", "budget=10", "until=score", "tracker=none"]
    first = Command(*command, cwd=ROOT)
    while first.poll() is None and not list(tmp_path.glob("score/*/lease")):
        time.sleep(0.02)
    second = run_command(*command, cwd=ROOT)
    assert first.wait(300) == 0, first.errors()
    assert second.returncode == 0, second.stderr
    assert f"waiting for process {first.pid} on" in second.stderr
    assert len(list(tmp_path.glob("score/*/stage.json"))) == 1


@pytest.mark.slow
def test_a_pool_without_responses_is_told_so_before_anything_is_scored(tmp_path):
    pool = write_pool(tmp_path / "pool.jsonl", *[{"prompt": row["prompt"]} for row in GOOD])
    message = refuse(f"store={tmp_path / 'store'}", *pool, "budget=2", "tracker=none")
    assert "no text in column 'response': " in message and "; so the oracle cannot annotate" in message
    assert "until=select" in message
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_report_without_runs_says_where_it_looked(tmp_path):
    message = refuse("report", "--store", tmp_path, module=True)
    assert str(tmp_path) in message


@pytest.mark.slow
def test_run_works_from_any_directory(tmp_path):
    code, out, err = call("until=select", "check=true", "tracker=none", "strategy=random", cwd=tmp_path)
    assert code == 0, err
    assert "Nothing was done" in out
    assert [path.name for path in Path(tmp_path).glob("outputs/*")] == ["pool"]


def test_flags_may_stand_anywhere_and_keep_their_values():
    words = ["a=1", "-m", "b=2", "-i", "defaults", "--cfg", "job", "~c.d", "-cd", "x", "--info"]
    expected = ["-m", "-i", "defaults", "--cfg", "job", "-cd", "x", "--info", "all", "a=1", "b=2", "~c.d"]
    assert read_arguments(words) == expected


@pytest.mark.slow
def test_information_may_be_asked_for_before_settings():
    code, out, _ = call("--info", "seed=3")
    assert code == 0
    assert "seed: 3" in out
