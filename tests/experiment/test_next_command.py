"""The commands that a run prints: each runs as printed, whoever composed the configuration."""

import json
import shlex
import subprocess

import pytest
from omegaconf import OmegaConf

from aliquot.config.schema import ROOT
from aliquot.experiment.next_command import overrides_of
from command_line import run_command
from few_questions import QUESTIONS

SMALL = [*QUESTIONS, "tracker=none", "finetune.epochs=1"]


def paste(command, cwd):
    """Run a command as a user does who pastes it into a shell; return what it says."""
    split = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True)
    python, *words, _ = split.stdout.split("\0")
    assert python == "python"
    done = run_command(*words, cwd=cwd)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def following(out):
    """Return the command after `Next`, without the remark behind it."""
    return next(line for line in out.splitlines() if line.startswith("Next  ")).removeprefix("Next").split("   (")[0]


def waits(out):
    """Return the command to give when people have answered."""
    return out.splitlines()[-1].strip()


def write_pool(folder, name):
    """Write a pool without responses."""
    (folder / name).write_text("".join(json.dumps({"id": f"r{i}", "prompt": f"Say {i}."}) + "\n" for i in range(6)))


def answer(folder):
    """Answer all prompts of a batch."""
    rows = [json.loads(line) for line in (folder / "to_annotate.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"response": "word"}) + "\n" for row in rows]
    (folder / "returned" / "all.jsonl").write_text("".join(lines))


@pytest.mark.slow
def test_from_a_choice_among_prompts_without_responses_every_next_command_runs_up_to_the_report(tmp_path):
    write_pool(tmp_path, "it's, [mine].jsonl")
    settings = ["pool=jsonl", '''pool.path="it's, [mine].jsonl"''', "budget=all", '''store="a, store"''', *SMALL]
    out = paste(shlex.join(["python", str(ROOT / "run.py"), *settings, "strategy=longest", "until=select"]), tmp_path)
    assert "annotator=file" in following(out)
    out = paste(following(out), tmp_path)
    assert "wait" in out
    answer(next(tmp_path.glob("annotate_*")))
    out = paste(waits(out), tmp_path)
    assert "demo_mmlu" in out
    out = paste(following(out), tmp_path)  # the reference
    assert "by random" in out
    assert following(out).strip() == "python -m aliquot report --store 'a, store'"
    assert "random" in paste(following(out), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("until", ["score", "annotate", "finetune"])
def test_the_command_after_a_run_that_stopped_early_is_the_whole_experiment(tmp_path, until):
    settings = ["pool.limit=40", "budget=8", "store=s", "strategy=longest", *SMALL]
    out = paste(shlex.join(["python", str(ROOT / "run.py"), *settings, f"until={until}"]), tmp_path)
    assert "demo_mmlu" in paste(following(out), tmp_path)


@pytest.mark.slow
def test_a_sweep_without_responses_prints_the_sweep_with_people_as_annotators_and_it_runs(tmp_path):
    write_pool(tmp_path, "a pool.jsonl")
    settings = ["pool=jsonl", "pool.path=a pool.jsonl", "budget=2", "store=s s", "strategy=longest,random", *SMALL]
    out = paste(shlex.join(["python", str(ROOT / "run.py"), "-m", *settings, "until=select"]), tmp_path)
    out = paste(following(out), tmp_path)
    answer(next(tmp_path.glob("annotate_*")))
    out = paste(waits(out), tmp_path)
    assert "longest" in paste(following(out), tmp_path)


@pytest.mark.slow
def test_a_composed_run_prints_the_command_of_its_own_configuration(run, compose, tmp_path, capsys):
    run("strategy=longest", "until=annotate", "evaluate.limit=3")
    words = shlex.split(following(capsys.readouterr().out))
    assert words[:2] == ["python", str(ROOT / "run.py")] or words[:2] == ["python", "run.py"]
    cfg = compose(*words[2:])
    assert (cfg.budget, cfg.pool.limit, cfg.evaluate.limit, cfg.until.value) == ("40", 300, 3, "evaluate")
    assert (cfg.strategy._target_.split(".")[-1], cfg.store) == ("Longest", str(tmp_path / "store"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "strategy=random"],
        ["strategy.kernel.gamma=0.2", "until=select", "store='a, b'"],
        ["experiments=smoke"],
        ["strategy=mean_entropy", "pool=jsonl", "pool.path='it\\'s, [x]'", "model=hf", "model.path=''", "tracker=none"],
        ["evaluate=mmlu_bbh", "evaluate.num_fewshot={mmlu: 5}", "evaluate.tasks=[mmlu]"],
        ["model=llama3_8b", "model/quantization=nf4", "model.template='{prompt} = {response}'"],
        ["strategy/mode=sparse", "strategy/kernel=cosine"],
        ["~strategy.kernel.gamma", "+strategy.extra=null", "tracker.tags=[a b,'c,d']"],
    ],
    ids=" ".join,
)
def test_the_overrides_of_a_composed_configuration_compose_to_it(compose, overrides):
    cfg = compose(*overrides)
    again = compose(*overrides_of(cfg))
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(cfg, resolve=True)
