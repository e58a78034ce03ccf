"""MMLU and BIG-Bench Hard from local copies: lm-eval's own tasks, all of them, on data that was checked first."""

import csv
import gzip
import json
import random
from dataclasses import replace

import pytest

from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.harness.tasks import read_questions
from aliquot.evaluation.local_copies import SUITES
from aliquot.evaluation.run import check_evaluable, evaluate
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec

MMLU, BBH = SUITES
CPU = TrainerSpec("cpu")


@pytest.fixture(scope="module")
def subjects():
    return sorted(file.stem.removeprefix("mmlu_") for file in MMLU.folder().glob(MMLU.subjects))


@pytest.fixture(scope="module")
def mmlu(subjects):
    """Rows as numerous as MMLU's: subject -> split -> rows."""
    sizes = [246] * (len(subjects) - 1)
    return {
        subject: {split: [question(subject, i) for i in range(n)] for split, n in (("dev", 5), ("test", size))}
        for subject, size in zip(subjects, [*sizes, 14_042 - sum(sizes)], strict=True)
    }


def question(subject, i):
    choices = [f"{subject} {i}, choice {letter}" for letter in "ABCD"]
    return {"question": f'What of "{subject}",\n{i}?', "subject": subject, "choices": choices, "answer": i % 4}


def write_mmlu(folder, mmlu, form="jsonl"):
    folder.mkdir(parents=True)
    for split in ("dev", "test"):
        rows = [row for splits in mmlu.values() for row in splits[split]]
        text = "".join(json.dumps({"id": str(i), **row}) + "\n" for i, row in enumerate(rows))
        if form == "jsonl":
            (folder / f"{split}.jsonl").write_text(text)
        elif form == "jsonl.gz":
            (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / split).mkdir()
            for subject, splits in mmlu.items():
                with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                    cells = ([r["question"], *r["choices"], "ABCD"[r["answer"]]] for r in splits[split])
                    csv.writer(file).writerows(cells)
    return folder.parent


def write_bbh(folder):
    folder.mkdir(parents=True)
    for file in BBH.folder().glob(BBH.subjects):
        n = {"causal_judgement": 187, "penguins_in_a_table": 146, "snarks": 178}.get(file.stem, 250)
        examples = [{"input": f"{file.stem} {i}?", "target": f"({i})"} for i in range(n)]
        (folder / f"{file.stem}.json").write_text(json.dumps({"canary": "...", "examples": examples}))
    return folder.parent


@pytest.mark.slow
def test_the_form_of_the_files_does_not_change_what_is_read(mmlu, tmp_path):
    copies = [write_mmlu(tmp_path / form / "mmlu", mmlu, form) for form in ("jsonl", "jsonl.gz", "csv")]
    assert all(MMLU.rows(copy) == mmlu for copy in copies)
    assert len({json.dumps(Benchmark(["mmlu"], data=str(copy)).identity()) for copy in copies}) == 1
    (copies[0] / "mmlu" / "test.jsonl").write_text(
        (copies[0] / "mmlu" / "test.jsonl").read_text().replace("choice A", "choice a", 1)
    )
    changed = Benchmark(["mmlu"], data=str(copies[0])).identity()
    assert changed["data"] != Benchmark(["mmlu"], data=str(copies[1])).identity()["data"]


@pytest.mark.slow
def test_lm_eval_reads_exactly_the_questions_of_the_copy(mmlu, tmp_path):
    data = write_bbh(write_mmlu(tmp_path / "data" / "mmlu", mmlu) / "bbh")
    names = ["mmlu_astronomy", "bbh_fewshot_snarks"]
    found = read_questions(Benchmark(names, data=str(data), limit=3))
    rows = mmlu["astronomy"]["test"]
    assert len(found) == len(rows) + 178
    assert all(
        row["question"] in text and row["choices"][3] in text for row, text in zip(rows, found[:-178], strict=True)
    )
    assert found[-1] == "Q: snarks 177?\nA:"


def break_line(folder, number, text):
    file = folder / "mmlu" / "test.jsonl"
    lines = file.read_text().splitlines()
    lines[number - 1 : number] = text
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (["{"], r"test.jsonl:7: no JSON"),
        (["[1]"], r"test.jsonl:7: list where an object must be"),
        ([json.dumps(question("alchemy", 1))], r"test.jsonl:7: subject 'alchemy' is none of MMLU's 57"),
        ([json.dumps(question("anatomy", 1) | {"answer": 4})], r"test.jsonl:7: answer 4 is none of the 4 choices"),
        ([json.dumps(question("anatomy", 1) | {"choices": ["a"]})], r"test.jsonl:7: a question and 4 choices"),
        ([], r"test.jsonl has 14,041 questions where MMLU has 14,042; copy it again"),
    ],
)
def test_a_bad_row_is_told_with_its_line(mmlu, tmp_path, text, told):
    data = write_mmlu(tmp_path / "mmlu", mmlu)
    break_line(data, 7, text)
    with pytest.raises(ValueError, match=told):
        Benchmark(["mmlu"], data=str(data)).check()


@pytest.mark.slow
def test_missing_and_short_files_are_told(mmlu, tmp_path):
    data = write_bbh(write_mmlu(tmp_path / "mmlu", mmlu) / "bbh")
    both = Benchmark(["mmlu", "bbh_fewshot"], data=str(data))
    both.check()
    snarks = data / "bbh" / "snarks.json"
    snarks.write_text(json.dumps({"examples": [{"input": "a", "target": "b"}, {"input": "a"}]}))
    with pytest.raises(ValueError, match=r"snarks.json: example 2 lacks a text 'input' or 'target'"):
        both.check()
    snarks.write_text(json.dumps({"examples": [{"input": "a", "target": "b"}]}))
    with pytest.raises(ValueError, match=r"snarks.json has 1 examples where BIG-Bench Hard has 178"):
        both.check()
    snarks.unlink()
    with pytest.raises(ValueError, match=r"snarks.json is missing"):
        both.check()
    replace(both, tasks=["mmlu"]).check()  # does not read bbh
    (data / "mmlu" / "dev.jsonl").unlink()
    with pytest.raises(ValueError, match=r"mmlu has no dev.jsonl, dev.jsonl.gz or dev/\*_dev.csv"):
        both.check()
    with pytest.raises(ValueError, match=r"nowhere has no folder mmlu"):
        replace(both, data=str(tmp_path / "nowhere")).check()


@pytest.mark.parametrize("found", [0, 4])
def test_subjects_must_be_complete(mmlu, tmp_path, found):
    dev = {subject: splits["dev"] for subject, splits in mmlu.items()}
    moved = {"anatomy": dev["anatomy"][:found], "virology": dev["virology"] + dev["virology"][found:]}
    uneven = {subject: splits | {"dev": moved.get(subject, dev[subject])} for subject, splits in mmlu.items()}
    with pytest.raises(ValueError, match=rf"dev.jsonl has {found} dev questions on anatomy; copy it again"):
        MMLU.rows(write_mmlu(tmp_path / "mmlu", uneven))


def test_what_does_not_belong_together_is_refused(mmlu, tmp_path):
    data = str(write_mmlu(tmp_path / "mmlu", mmlu))
    with pytest.raises(ValueError, match=r"holds mmlu and bbh, and evaluate.tasks names hellaswag"):
        Benchmark(["mmlu", "hellaswag"], data=data).check()
    with pytest.raises(ValueError, match=r"unknown task 'mmlu_anatomie'; tasks in lm-eval: mmlu_anatomy"):
        Benchmark(["mmlu_anatomie"], data=data).check()
    with pytest.raises(ValueError, match=r"evaluate.include=pkg://aliquot.demo/tasks brings others"):
        Benchmark(["demo_mmlu"], "pkg://aliquot.demo/tasks", data)
    with pytest.raises(ValueError, match=r"evaluate.num_fewshot.bbh=3: 'bbh' is not in evaluate.tasks=\['mmlu'\]"):
        Benchmark(["mmlu"], num_fewshot={"bbh": 3}, data=data).check()
    with pytest.raises(ValueError, match=r"evaluate.num_fewshot.mmlu=five is str; it must be a whole number"):
        Benchmark(["mmlu"], num_fewshot={"mmlu": "five"})


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """A cache of `datasets` that seems to hold both suites."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    for suite in (MMLU, BBH):
        (tmp_path / suite.hub.replace("/", "___")).mkdir()


@pytest.mark.slow
def test_a_number_for_a_task_that_is_not_asked_can_be_dropped_as_told(compose, cached):
    from aliquot.config.create import create

    chosen = ["evaluate=mmlu_bbh", "evaluate.tasks=[mmlu]"]
    with pytest.raises(ValueError, match=r"drop the number with '~evaluate.num_fewshot.bbh_cot_fewshot'"):
        create(compose(*chosen), "evaluate").check()
    create(compose(*chosen, "~evaluate.num_fewshot.bbh_cot_fewshot"), "evaluate").check()
    with pytest.raises(ValueError, match=r"unknown task 'mmlu_anatomie'"):  # first
        create(compose(*chosen, "evaluate.tasks=[mmlu_anatomie]"), "evaluate").check()


@pytest.mark.parametrize(("task", "most"), [("mmlu", 5), ("bbh_fewshot", 3), ("bbh_cot_fewshot_snarks", 3)])
def test_more_worked_examples_than_there_are_are_refused(cached, task, most):
    Benchmark([task], num_fewshot={task: most}).check()
    for asked in ({task: most + 1}, most + 1):
        with pytest.raises(ValueError, match=rf"evaluate.num_fewshot={most + 1} for {task}: .* give {most} at most"):
            Benchmark([task], num_fewshot=asked).check()


def test_without_hub_and_copy_the_remedy_comes_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"cais/mmlu.* is not in the cache and .*offline mode.*evaluate.data"):
        Benchmark(["mmlu"]).check()
    (tmp_path / "cais___mmlu").mkdir()
    Benchmark(["mmlu"]).check()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmlu_bbh", "mmlu_bbh_direct", "mmlu_bbh_smoke"])
def test_the_choices_compose_and_pass_the_preflight_on_local_data(name, real_data, compose):
    from aliquot.config.create import create

    benchmark = create(
        compose(f"evaluate={name}", f"evaluate.data={real_data}", "evaluate.num_fewshot.mmlu=5"), "evaluate"
    )
    benchmark.check()
    assert benchmark.num_fewshot["mmlu"] == 5
    assert str(real_data) not in json.dumps(benchmark.identity())


@pytest.mark.slow
def test_all_official_tasks_run_on_local_data(real_data, tmp_path):
    model = Model(str(real_data / "models" / "tinystories-656k-llama"))
    names = ["mmlu", "bbh_cot_fewshot", "bbh_fewshot"]
    limit = {"mmlu": 2, "bbh_cot_fewshot": 1, "bbh_fewshot": 1}
    benchmark = Benchmark(names, data=str(real_data), limit=limit, max_new_tokens=4, batch_size=8)
    found = evaluate(model, None, benchmark, CPU, tmp_path)
    assert [(metric.name, metric.num_questions) for metric in found.metrics] == list(
        zip(names, [114, 27, 27], strict=True)
    )
    record = json.loads((tmp_path / "metrics.json").read_text())
    shots = {name: {n for task, n in record["num_fewshot"].items() if task.startswith(f"{name}_")} for name in names}
    assert shots == {"mmlu": {0}, "bbh_cot_fewshot": {3}, "bbh_fewshot": {3}}
    assert record["task_versions"]["mmlu_anatomy"] == 1.0 and record["task_versions"]["bbh_fewshot_snarks"] == 2.0
    assert len(set(record["task_data"].values())) == 57 + 2 * 27
    assert 0 < record["num_cut"]["bbh_cot_fewshot_navigate"] <= 1  # its examples are longer than the model's context


@pytest.mark.slow
def test_answers_that_leave_no_room_are_refused_before_any_question(real_data, tmp_path):
    model = Model(str(real_data / "models" / "tinystories-656k-llama"))
    chain = Benchmark(["mmlu", "bbh_cot_fewshot"], data=str(real_data))
    with pytest.raises(
        ValueError, match=r"may have 1,024 tokens, and the model's context has 512 .*max_new_tokens=128"
    ):
        check_evaluable(model, chain)
    with pytest.raises(ValueError, match=r"may have 512 tokens, and the model's context has 512"):
        evaluate(model, None, replace(chain, max_new_tokens=512), CPU, tmp_path)
    for fits in (replace(chain, max_new_tokens=511), replace(chain, tasks=["mmlu_stem_tasks", "bbh_fewshot"])):
        check_evaluable(model, fits)


def test_real_copies_are_complete(real_data):
    rows = MMLU.rows(real_data)
    assert (len(rows), sum(len(splits["test"]) for splits in rows.values())) == (57, 14_042)
    examples = BBH.rows(real_data)
    assert (len(examples), sum(len(splits["test"]) for splits in examples.values())) == (27, 6_511)
    draw = random.Random(0).choice(rows["virology"]["test"])
    assert set(draw) == {"question", "subject", "choices", "answer"}
