"""The stage that prepares a pool: done once, read at once, safe to kill, and without a response anywhere."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest

from aliquot.annotation.annotator import Oracle
from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.harness.tasks import read_questions
from aliquot.experiment.build import Parts, build
from aliquot.pools.cleaning import Cleaning
from aliquot.pools.spec import JsonlPool
from aliquot.runtime.trainer import TrainerSpec
from aliquot.selection.strategies.random import Random
from aliquot.stages import Annotate, Prepare, Select
from aliquot.store.store import Store


def write(path, num=50, secret="SECRET", **options):
    rows = [
        {"id": f"r{i}", "prompt": f"prompt {i}", "response": f"{secret} {i}", "task": f"t{i % 3}"} for i in range(num)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JsonlPool(str(path), **options)


def test_a_pool_is_prepared_once_and_then_only_mapped(tmp_path, monkeypatch):
    store, spec = Store(tmp_path / "store"), write(tmp_path / "a.jsonl")
    first = store.get(Prepare(spec))
    (tmp_path / "elsewhere").mkdir()
    moved = JsonlPool(str((tmp_path / "a.jsonl").rename(tmp_path / "elsewhere" / "b.jsonl")), name="moved")
    monkeypatch.setattr(JsonlPool, "rows", None)  # would fail if the source were read again
    again = store.get(Prepare(moved))
    assert again.name == "moved"
    assert list(again.ids) == list(first.ids) == [f"r{i}" for i in range(50)]


def test_no_response_reaches_a_file_before_annotation(tmp_path):
    store = Store(tmp_path / "store")
    pool = Prepare(write(tmp_path / "a.jsonl"))
    select = Select(pool, Random(seed=0), None, 10, TrainerSpec("cpu"))
    store.ensure(select)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert any(b"prompt 7" in path.read_bytes() for path in files)
    assert not any(b"SECRET" in path.read_bytes() for path in files)
    annotated = store.get(Annotate(select, Oracle(), 10))
    assert [r.removeprefix("SECRET ") for r in annotated.responses] == [i.removeprefix("r") for i in annotated.ids]


@pytest.mark.slow
def test_questions_of_the_chosen_benchmark_are_kept_out_of_the_pool(compose, tmp_path):
    exam = compose("evaluate=demo").evaluate
    (question,) = read_questions(Benchmark([exam.tasks[0]], include=exam.include))[:1]
    rows = [
        {"prompt": f"Answer this now: {question}"},
        {"prompt": "Something that no exam would ever ask anybody, so there"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = [
        "pool=jsonl",
        f"pool.path={tmp_path / 'a.jsonl'}",
        f"store={tmp_path / 'store'}",
        "strategy=random",
        "budget=1",
        "until=select",
    ]
    pool = ["pool.clean.decontaminate=[evaluate]", "pool.clean.overlap=5"]
    texts = ((), tuple(pool), (*pool, "evaluate.limit=3"))
    stages = {text: build(Parts.of(compose(*chosen, *text))).stages[0] for text in texts}
    left = [list(Store(tmp_path / "store").get(stage).prompts) for stage in stages.values()]
    assert [len(prompts) for prompts in left] == [2, 1, 1]
    assert left[1] == [rows[1]["prompt"]]
    first, second, third = (stage.key for stage in stages.values())
    assert first != second == third


@pytest.mark.slow
def test_columns_of_a_prepared_pool_are_sequences(tmp_path):
    pool = Store(tmp_path / "store").get(Prepare(write(tmp_path / "a.jsonl", num=20_000)))  # several batches
    expected = [f"prompt {i}" for i in range(20_000)]
    assert list(pool.prompts) == expected == pool.prompts[:]
    assert pool.prompts[8190:8195] == expected[8190:8195]
    assert (pool.prompts[0], pool.prompts[-1], pool.ids[np.int64(19_999)]) == ("prompt 0", "prompt 19999", "r19999")
    assert np.unique(np.array(pool.tasks)).tolist() == ["t0", "t1", "t2"]
    assert "prompt 19999" in pool.prompts and pool.prompts.index("prompt 3") == 3
    with pytest.raises(IndexError):
        pool.prompts[20_000]


def prepare_until_killed(spec, root):
    def rows(reading):
        for number, row in enumerate(JsonlPool.rows(spec, reading)):
            if number == 12_000:
                os.kill(os.getpid(), signal.SIGKILL)
            yield row

    object.__setattr__(spec, "rows", rows)
    Store(root).ensure(Prepare(spec))


@pytest.mark.slow
def test_a_killed_preparation_leaves_nothing_that_counts_and_is_done_again(tmp_path):
    spec = write(tmp_path / "a.jsonl", num=20_000)
    process = multiprocessing.get_context("fork").Process(target=prepare_until_killed, args=(spec, tmp_path / "store"))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store, stage = Store(tmp_path / "store"), Prepare(spec)
    assert list(store.directory(stage).glob("*.partial"))
    assert store.record(stage) is None
    assert len(store.get(stage)) == 20_000
    names = {path.name for path in store.directory(stage).iterdir()}
    assert names == {"pool.arrow", "report.json", "dropped.jsonl", "stage.json"}


@pytest.mark.slow
def test_what_reads_a_pool_depends_on_its_prompts_and_not_on_how_they_were_had(run, tmp_path):
    def score_and_choose(prompt="prompt 1", *overrides, **response):
        rows = [{"id": i, "prompt": f"prompt {i}" if i != 1 else prompt, **response} for i in range(20)]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pool = ["pool=jsonl", f"pool.path={tmp_path / 'a.jsonl'}", "pool.limit=null", "budget=5"]
        run(*pool, "strategy=min_margin", *(overrides or ["until=select"]))
        kinds = ("pool", "score", "select", "annotate")
        return [len(list((tmp_path / "store").glob(f"{kind}/*/stage.json"))) for kind in kinds]

    assert score_and_choose() == [1, 1, 1, 0]
    said = score_and_choose("prompt 1", "until=annotate", response="yes")  # a column more
    assert said == [2, 1, 1, 1]
    other = score_and_choose("prompt 1", "until=annotate", "pool.response=reply", reply="no")
    assert other == [3, 1, 1, 2], "other responses, bought anew"
    assert score_and_choose("prompt one", reply="no") == [4, 2, 2, 2]


@pytest.mark.slow
def test_the_digest_is_that_of_the_rows_and_not_of_how_the_file_parts_them(tmp_path):
    def digest(**options):
        return Prepare(write(tmp_path / "a.jsonl", **options)).settled(Store(tmp_path / "store")).digest

    whole = digest(num=9000)
    assert whole == digest(num=9000, secret="other") == digest(num=9000, sample=9000)
    rows = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b.jsonl").write_text("".join([*rows[:5000], rows[0].replace('"r0"', '"again"'), *rows[5000:]]))
    spec = JsonlPool(str(tmp_path / "b.jsonl"), clean=Cleaning(near=1.0))
    assert Prepare(spec).settled(Store(tmp_path / "store")).digest == whole
    (tmp_path / "b.jsonl").write_text("".join(reversed(rows)))
    assert Prepare(JsonlPool(str(tmp_path / "b.jsonl"))).settled(Store(tmp_path / "store")).digest != whole


def test_a_preparation_that_fails_leaves_no_half_of_a_pool(tmp_path):
    write(tmp_path / "a.jsonl")
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write('{"prompt": ""}\n')
    store, stage = Store(tmp_path / "store"), Prepare(JsonlPool(str(tmp_path / "a.jsonl")))
    with pytest.raises(ValueError, match=r"a\.jsonl:51: the prompt is empty"):
        store.ensure(stage)
    assert not list(store.directory(stage).glob("*.partial"))


@pytest.mark.slow
def test_what_can_be_known_to_fail_is_looked_at_before_the_pool_is_read(run, tmp_path, monkeypatch):
    monkeypatch.setattr(JsonlPool, "rows", None)  # would fail if the pool were read
    for overrides, message in (
        (["model=hf", f"model.path={tmp_path}"], "has no config.json"),
        (["evaluate.tasks=[demo_mlu]"], "unknown task 'demo_mlu'"),
        (["+pool.response=reply"], "no text in column 'reply'"),
    ):
        with pytest.raises(ValueError, match=message):
            run("strategy=random", *overrides)
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_questions_that_cannot_be_had_are_told_before_the_pool_is_read(run, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"cais/mmlu.* is not in the cache .*point evaluate.data at a folder"):
        run("until=select", "strategy=random", "evaluate=mmlu_bbh", "pool.clean.decontaminate=[evaluate]")


def test_what_changes_rows_changes_the_key_and_nothing_else_does(tmp_path):
    spec = write(tmp_path / "a.jsonl")
    keys = {Prepare(write(tmp_path / "b.jsonl", **options)).key for options in ({}, {"name": "other"})}
    assert keys == {Prepare(spec).key}
    assert Prepare(write(tmp_path / "b.jsonl", limit=7)).key not in keys
    assert Prepare(write(tmp_path / "b.jsonl", num=49)).key not in keys


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_what_it_was(tmp_path):
    spec = write(tmp_path / "a.jsonl")
    stage = Prepare(spec)
    assert stage.key
    write(tmp_path / "a.jsonl", num=60)
    with pytest.raises(ValueError, match="pool reads was changed"):
        Store(tmp_path / "store").ensure(stage)


@pytest.mark.slow
def test_a_run_says_in_one_line_what_the_pool_lost(run, tmp_path, capsys):
    lines = [json.dumps({"prompt": f"prompt {i % 40}", "response": "x"}) + "\n" for i in range(50)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    run("pool=jsonl", f"pool.path={tmp_path / 'a.jsonl'}", "until=select", "strategy=random", "budget=50%")
    out = capsys.readouterr().out
    assert "pool 'jsonl': 40 of 50 rows are left (10 duplicates)" in out
    assert "20 of the 40 prompts" in out
