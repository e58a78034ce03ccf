"""Experiments whose responses people write into files: the run waits without leaving traces, and goes on."""

import dataclasses
import json
import random
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aliquot.annotation.people.people import People
from aliquot.config.schema import ROOT
from aliquot.experiment.build import Parts, build
from aliquot.experiment.quote import quote
from aliquot.experiment.run import ask, fetch
from aliquot.selection.strategies.random import Random
from aliquot.stages import Annotate, Finetune
from aliquot.store.store import Store
from aliquot.types import Pool, Scores
from command_line import run_command

FILES = ("annotator=file", "strategy=random")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "batch"


@pytest.fixture
def files(run, folder):
    """Run with people who answer in files; returns what `run` does."""
    return lambda *more: run(*FILES, f"annotator.folder={folder}", *more)


def asked(folder, name="to_annotate.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def answer(folder, rows=None, name="a.jsonl", say="the answer to {prompt}"):
    """Return responses as an annotator does who filled in the file that aliquot wrote."""
    rows = asked(folder) if rows is None else rows
    text = "".join(json.dumps(row | {"response": say.format(**row)}) + "\n" for row in rows)
    (folder / "returned" / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "returned" / name).write_text(text, encoding="utf-8")
    return rows


def done(tmp_path, stage):
    return {path.parent.name for path in tmp_path.glob(f"store/{stage}/*/stage.json")}


@pytest.mark.slow
def test_the_run_waits_without_a_trace_and_the_same_command_finetunes_on_what_came_back(
    files, tmp_path, folder, capsys
):
    assert str(files("tracker=wandb")) == "nan"
    said = " ".join(capsys.readouterr().out.split())
    assert f"40 of 40 prompts wait for their responses: {folder}/to_annotate.jsonl" in said
    assert f"Put the responses into {folder}/returned and run the same command again: python " in said
    left = {path.relative_to(tmp_path / "store").parts[0] for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert left == {"pool", "select", "trial"}  # no run, no mirror of one, no error
    rows = answer(folder)
    before = (folder / "returned" / "a.jsonl").read_bytes()
    assert 0 <= files("annotator.price=0.25") <= 1
    (stage,) = (tmp_path / "store" / "annotate").glob("*/stage.json")
    trained = [json.loads(line) for line in (stage.parent / "annotated.jsonl").read_text().splitlines()]
    assert trained == [row | {"response": f"the answer to {row['prompt']}"} for row in rows]
    assert (folder / "returned" / "a.jsonl").read_bytes() == before
    (results,) = (tmp_path / "store" / "runs").glob("*/results.json")
    record = json.loads(results.read_text())
    assert (record["annotator"], record["num_annotated"], record["annotation_cost"]) == ("people (files)", 40, 10.0)
    assert "Annotated     40 of 300 prompts by random, by people (files), cost 10.0000" in capsys.readouterr().out
    assert (results.parent / "quality.html").exists()
    files("annotator.price=0.25")
    assert "nothing was computed" in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_beside_the_run_tells_how_far_two_annotators_agree_and_their_bill_has_both(files, folder, tmp_path):
    files("until=annotate", "annotator.double=0.5")
    answer(folder)
    twice = asked(folder, "to_annotate_second.jsonl")
    assert 5 < len(twice) < 35
    answer(folder, twice, "second/a.jsonl", say="another answer to {prompt}")
    files("until=annotate", "annotator.double=0.5", "annotator.price=2")
    (page,) = (tmp_path / "store" / "runs").glob("*/quality.html")
    assert f"{len(twice)} prompts were answered by two annotators" in page.read_text()
    record = json.loads((page.parent / "results.json").read_text())
    assert record["annotation_cost"] == 2 * (40 + len(twice))


@pytest.mark.slow
def test_a_command_line_that_waits_exits_with_0_and_names_itself(tmp_path):
    command = [
        "run.py", "pool.limit=200", "budget=5", *FILES, f"annotator.folder={tmp_path}/my batch", "tracker=none",
        f"store={tmp_path}/store", "until=annotate",
    ]  # fmt: skip
    ran = run_command(*command, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    *_, last = ran.stdout.splitlines()
    assert last.strip() == f"python {' '.join(command)}".replace(
        f"annotator.folder={tmp_path}/my batch", f"'annotator.folder={tmp_path}/my batch'"
    )


@pytest.mark.slow
def test_checking_asks_nobody(files, folder, capsys):
    files("check=true")
    assert "Nothing was done" in capsys.readouterr().out and not folder.exists()


@pytest.mark.slow
def test_a_plan_says_what_the_responses_cost_that_are_not_back(files, folder, capsys):
    prices = ("annotator.price=0.5", "annotator.double=0.5", "until=annotate")
    files("check=true", *prices)
    assert "at most about 30.00, " in capsys.readouterr().out
    files(*prices)
    answer(folder)
    files("check=true", *prices)
    assert "Annotating" not in capsys.readouterr().out.rpartition("random: 40 of the 300")[2]


@pytest.mark.slow
def test_a_sweep_is_quoted_by_its_deepest_rankings_and_by_no_prompt_twice(compose, tmp_path):
    def quoted(*grid):
        shared = (*FILES[:1], "annotator.folder=x", "annotator.price=1", "pool.limit=300", f"store={tmp_path}")
        cfgs = [compose(*shared, f"strategy={strategy}", f"budget={budget}") for strategy, budget in grid]
        return quote([build(Parts.of(cfg)) for cfg in cfgs], Store(tmp_path))

    assert quoted(("random", 40), ("random", 100), ("longest", 20)) == 120
    assert quoted(("random", 250), ("longest", 200)) == 300


@pytest.mark.slow
def test_partial_returns_are_counted_and_used_only_where_that_is_wanted(files, tmp_path, folder, capsys):
    files("until=annotate")
    answer(folder, asked(folder)[:27])
    capsys.readouterr()
    files("until=annotate")
    said = capsys.readouterr().out
    assert (
        "13 of 40 prompts wait" in said
        and "annotator.allow_partial=true continues with the responses available" in said
    )
    assert not done(tmp_path, "annotate")
    files("until=annotate", "annotator.allow_partial=true")
    assert "Annotated     27 of 40 chosen" in capsys.readouterr().out
    answer(folder)
    files("until=annotate", "annotator.allow_partial=true")
    assert len(done(tmp_path, "annotate")) == 2


@pytest.mark.slow
def test_other_responses_are_another_finetuning_and_the_same_ones_in_other_files_are_not(
    compose, files, folder, tmp_path
):
    def finetune_key():
        small = ["pool.limit=300", "budget=40", "evaluate.limit=1", "tracker=none", f"store={tmp_path / 'store'}"]
        experiment = build(Parts.of(compose(*small, *FILES, f"annotator.folder={folder}", "annotator.price=3")))
        return next(stage.key for stage in experiment.stages if isinstance(stage, Finetune))

    files("until=annotate")
    waiting = finetune_key()
    rows = answer(folder)
    first = finetune_key()
    assert first != waiting
    (folder / "returned" / "a.jsonl").unlink()
    random.Random(0).shuffle(rows)
    answer(folder, rows[:9], "b.jsonl")
    table = [row | {"response": f"the answer to {row['prompt']}"} for row in rows[9:]]
    pq.write_table(pa.Table.from_pylist(table), folder / "returned" / "c.parquet")
    assert finetune_key() == first
    answer(folder, rows[:9], "b.jsonl", say="another answer")
    assert finetune_key() not in (first, waiting)


@pytest.mark.slow
def test_larger_budgets_and_other_strategies_ask_for_what_is_new_and_share_what_is_there(files, folder, capsys):
    files("until=annotate", "budget=20")
    answer(folder)
    known = asked(folder)
    capsys.readouterr()
    files("until=annotate", "budget=30")
    assert "10 of 30 prompts wait" in capsys.readouterr().out
    assert asked(folder)[:20] == known and len(asked(folder)) == 30
    files("until=annotate", "budget=25", "strategy=longest")
    ids = [row["id"] for row in asked(folder)]
    assert len(ids) == len(set(ids)) and 30 < len(ids) <= 55
    answer(folder)
    capsys.readouterr()
    files("until=annotate", "budget=25", "strategy=longest")
    files("until=annotate", "budget=30")
    assert "wait" not in capsys.readouterr().out


@pytest.mark.slow
def test_an_experiment_of_two_processes_waits_once_and_goes_on_in_plain_words(tmp_path, folder):
    command = [
        "run.py", "pool.limit=60", "budget=20", "until=finetune", "strategy=min_margin", *FILES[:1], "tracker=none",
        f"annotator.folder={folder}", f"store={tmp_path}/store", "trainer.accelerator=cpu", "trainer.devices=2",
    ]  # fmt: skip

    def go():
        ran = run_command(*command, cwd=ROOT)
        assert ran.returncode == 0, ran.stderr
        begun = {line.split(":")[0].split("(")[0] for line in ran.stderr.splitlines()}
        assert begun <= {"pool", "score", "Uncertainty", "finetune"}, ran.stderr  # nobody else's words
        return ran.stdout

    assert go().count("20 of 20 prompts wait for their responses") == 1
    answer(folder)
    assert "Annotated     20 of 60 prompts by min_margin" in go()


@pytest.mark.slow
def test_what_was_answered_before_it_was_chosen_is_trained_on_at_once(files, folder, tmp_path):
    files("until=annotate")
    answer(folder)
    elsewhere = tmp_path / "another store"
    files("until=annotate", f"store={elsewhere}")
    assert list(elsewhere.glob("annotate/*/stage.json"))


@pytest.mark.slow
def test_an_experiment_without_responses_waits_beside_one_that_has_some(files, folder, compose, tmp_path, capsys):
    store, partial = Store(tmp_path / "store"), "annotator.allow_partial=true"
    chosen = {}
    for strategy in ("longest", "random"):
        files("until=annotate", partial, "budget=10", f"strategy={strategy}")
        cfg = compose(
            "pool.limit=300", "evaluate.limit=1", "tracker=none", f"store={store.root}", *FILES, partial, "budget=10",
            f"annotator.folder={folder}", f"strategy={strategy}",
        )  # fmt: skip
        chosen[strategy] = cfg
    open_ids, _ = build(Parts.of(chosen["random"])).waiting.request(store)
    answer(folder, [row for row in asked(folder) if row["id"] not in open_ids])
    capsys.readouterr()
    ask([build(Parts.of(cfg)) for cfg in chosen.values()], store, "the command")
    said = capsys.readouterr().out
    assert "10 of 10 prompts wait" in said and "the command" in said


@pytest.mark.slow
def test_a_batch_that_many_experiments_share_is_fetched_once(compose, folder, monkeypatch):
    fetched = []
    monkeypatch.setattr(People, "fetch", lambda self: fetched.append(self.folder))
    batches = [folder, folder, folder.with_name("another")]
    fetch([compose(*FILES, f"annotator.folder={batch}", f"budget={n}") for n, batch in enumerate(batches, start=1)])
    assert fetched == [str(folder), str(folder.with_name("another"))]


@pytest.mark.slow
def test_responses_that_change_while_the_run_begins_are_not_trained_on(files, folder, monkeypatch, tmp_path):
    files("until=annotate")
    answer(folder)
    build_stage = Annotate.build

    def change_and_build(self, store, directory, on_metrics):
        answer(folder, say="something else")
        build_stage(self, store, directory, on_metrics)

    monkeypatch.setattr(Annotate, "build", change_and_build)
    with pytest.raises(ValueError, match="changed as the run started"):
        files("until=annotate")
    assert not done(tmp_path, "annotate")


def test_the_oracle_needs_no_answer_and_its_key_knows_no_digest(compose, tmp_path):
    cfg = compose("pool.limit=200", "budget=5", "strategy=random", f"store={tmp_path / 'store'}")
    (stage,) = (stage for stage in build(Parts.of(cfg)).stages if isinstance(stage, Annotate))
    assert set(stage.inputs()) == {"select", "annotator", "budget", "source"}
    assert stage.settled(Store(tmp_path / "store")) == stage and not stage.waits()


@pytest.mark.slow
def test_a_waiting_sweep_asks_once_for_the_prompts_of_all_and_one_batch_serves_it(tmp_path, folder):
    def sweep(*more):
        command = [
            "run.py", "-m", "pool.limit=200", "budget=8,16", *FILES, f"annotator.folder={folder}",
            "tracker=none", f"store={tmp_path}/store", "until=finetune", "hydra.launcher.workers=1", *more,
        ]  # fmt: skip
        return run_command(*command, cwd=ROOT)

    ran = sweep()
    assert ran.returncode == 0, ran.stderr
    (line,) = (line for line in ran.stdout.splitlines() if "wait for their responses" in line)
    number = len(asked(folder))
    assert number == 16 and f"{number} of {number} prompts wait" in line
    assert "FAILED" not in ran.stdout and not done(tmp_path, "finetune")
    assert re.search(r"python run.py -m .*budget=8,16", ran.stdout.splitlines()[-1])
    answer(folder)
    again = sweep()
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(done(tmp_path, "finetune")) == 2 and "prompts wait" not in again.stdout


@pytest.mark.slow
def test_nothing_of_a_response_reaches_a_strategy(files, folder, tmp_path, monkeypatch):
    """A strategy that digs through all it is given finds no response, and responses that are back change no choice."""
    secret, found = "the most secret response", []
    choose = Random.select

    def dig(self, pool, scores, k):
        seen, todo = set(), [self, pool, scores]
        while todo:
            value = todo.pop()
            if id(value) in seen or isinstance(value, (int, float, type)):
                continue
            seen.add(id(value))
            if isinstance(value, (str, bytes, Path)):
                found.append(str(value))
                continue
            members = getattr(value, "__dict__", {})
            todo += [*members.values(), *(value if isinstance(value, (list, tuple, dict, set)) else ())]
            if isinstance(value, dict):
                todo += value.values()
            elif hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (list, tuple)):
                todo += [value[i] for i in range(len(value))]
        return choose(self, pool, scores, k)

    monkeypatch.setattr(Random, "select", dig)
    rows = [{"prompt": f"prompt {i}", "response": f"{secret} {i}", "id": f"p{i}"} for i in range(60)]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ("pool=jsonl", f"pool.path={pool}", "until=annotate", "budget=20")
    files(*own)
    assert any(text.startswith("prompt ") for text in found) and not [text for text in found if "secret" in text]
    (selected,) = done(tmp_path, "select")
    before = (tmp_path / "store" / "select" / selected / "selection.npz").read_bytes()
    answer(folder, say=secret)
    files(*own)
    assert done(tmp_path, "select") == {selected} and done(tmp_path, "annotate")
    shutil.rmtree(tmp_path / "store" / "select")
    files(*own)  # chosen again with all responses there
    assert (tmp_path / "store" / "select" / selected / "selection.npz").read_bytes() == before
    assert not [text for text in found if "secret" in text]
    held = {field.name for kind in (Pool, Scores) for field in dataclasses.fields(kind)}
    assert not {name for name in held if "response" in name or "annotat" in name}
