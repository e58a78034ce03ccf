"""Held-out rows: what is read, what is refused, and what identifies them."""

import csv
import json
from dataclasses import replace

import pytest

from aliquot.evaluation.held_out.spec import CHOICE, EXACT_MATCH, LIKELIHOOD, MEASURES, HeldOut
from aliquot.evaluation.run import check_evaluable
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.stages import Evaluate
from tiny_model import save_tiny_model

ROWS = [
    {"id": "a", "prompt": "Is a cat big ?", "response": "no", "task": "size", "options": ["yes", "no"]},
    {"id": "b", "prompt": "What sees the cat ?", "response": "a dog", "task": "who"},
]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_tiny_model(tmp_path_factory.mktemp("model"))))


def test_rows_are_read_from_every_format_a_pool_has(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    spec = HeldOut(jsonl(tmp_path / "rows.jsonl", ROWS))
    table = [row | {"options": json.dumps(row["options"]) if "options" in row else ""} for row in ROWS]
    with open(tmp_path / "rows.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(table)
    pq.write_table(
        pa.Table.from_pylist([row | {"options": row.get("options")} for row in ROWS]), tmp_path / "rows.parquet"
    )
    talks = [
        {"id": row["id"], "task": row["task"], "options": row.get("options"),
         "messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]}
        for row in ROWS
    ]  # fmt: skip
    expected = spec.rows()
    assert expected.options == [["yes", "no"], None]
    assert expected.tasks == ["size", "who"]
    assert HeldOut(str(tmp_path / "rows.csv")).rows() == expected
    assert HeldOut(str(tmp_path / "rows.parquet")).rows() == expected
    assert HeldOut(jsonl(tmp_path / "talks.jsonl", talks), messages="messages").rows() == expected


def test_a_file_of_options_gives_each_task_its_distinct_responses(tmp_path):
    known = [{"task": "who", "response": text} for text in ("a dog", "a fox", "a dog")]
    spec = HeldOut(jsonl(tmp_path / "rows.jsonl", ROWS), options=jsonl(tmp_path / "options.jsonl", known))
    assert spec.rows().options == [["yes", "no"], ["a dog", "a fox"]]
    assert list(spec.measured(spec.rows())) == list(MEASURES)


def test_options_are_never_those_of_the_scored_rows(tmp_path):
    rows = [{"prompt": f"Is {i} odd ?", "response": ["yes", "no"][i % 2], "task": "odd"} for i in range(6)]
    spec = HeldOut(jsonl(tmp_path / "rows.jsonl", rows))
    assert spec.rows().options == [None] * 6
    assert CHOICE not in spec.measured(spec.rows())


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([], {}, r"rows\.jsonl has no rows; give"),
        ([ROWS[0], {"prompt": "Why ?"}], {}, r"rows\.jsonl:2: no text in column 'response'"),
        ([{"prompt": "", "response": "x"}], {}, r"rows\.jsonl:1: the prompt is empty"),
        ([{"question": "x", "response": "x"}], {}, r"rows\.jsonl:1: no text in column 'prompt': .*evaluate\.prompt"),
        ([ROWS[0] | {"response": "maybe"}], {}, r"rows\.jsonl:1: .*'maybe' is not among .* task size \('yes', 'no'\)"),
        ([ROWS[0] | {"options": ["no"]}], {}, r"rows\.jsonl:1: 'no' is the only option"),
        ([ROWS[0] | {"options": "yes or no"}], {}, r"rows\.jsonl:1: column 'options' is not a list"),
        ([ROWS[0] | {"options": "[yes"}], {}, r"rows\.jsonl:1: column 'options' is not a JSON list"),
        ([ROWS[0] | {"options": [1, 2]}], {}, r"rows\.jsonl:1: column 'options' is not a list of texts"),
        ([ROWS[0] | {"options": {"A": "yes"}}], {}, r"rows\.jsonl:1: column 'options' is not a list of texts"),
        (ROWS, {"measures": [CHOICE]}, r"choice_accuracy, and .*rows\.jsonl:2 has no closed set .* task who"),
        (ROWS, {"path": "nowhere.jsonl"}, r"evaluate\.path=nowhere\.jsonl: .* not a file"),
        (ROWS, {"options": "nowhere.csv"}, r"evaluate\.options=nowhere\.csv: .* not a file"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_in_one_line(tmp_path, model, rows, settings, message):
    spec = replace(HeldOut(jsonl(tmp_path / "rows.jsonl", rows)), **settings)
    with pytest.raises(ValueError, match=message) as error:
        check_evaluable(model, spec)
    assert "\n" not in str(error.value)


def test_a_file_of_options_for_other_tasks_is_refused_with_both_names(tmp_path):
    options = jsonl(tmp_path / "options.jsonl", [{"task": "Who", "response": text} for text in ("a dog", "a fox")])
    with pytest.raises(ValueError, match=r"options\.jsonl has options of tasks 'Who', .* have tasks 'size', 'who'"):
        HeldOut(jsonl(tmp_path / "rows.jsonl", ROWS), options=options).rows()


def test_a_missing_label_is_told_of(tmp_path, caplog):
    spec = HeldOut(jsonl(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "Why ?", "response": "so"}]))
    assert spec.rows().tasks is None
    assert "1 of 3 held-out rows" in caplog.text


def test_a_file_of_options_without_a_response_is_refused_by_its_row(tmp_path):
    options = jsonl(tmp_path / "options.jsonl", [{"task": "who", "response": "a dog"}, {"task": "who"}])
    with pytest.raises(ValueError, match=r"options\.jsonl:2: .* columns 'task' and 'response'"):
        HeldOut(jsonl(tmp_path / "rows.jsonl", ROWS), options=options).rows()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": ["bleu"]}, r"evaluate\.measures names bleu; choose from exact_match, "),
        ({"measures": []}, r"evaluate\.measures names no measure"),
        ({"overlap": "ignore"}, r"evaluate\.overlap=ignore is unknown; .* refuse, drop, keep"),
        ({"near": 0.0}, r"evaluate\.near=0\.0 "),
        ({"limit": 0}, r"evaluate\.limit=0 "),
        ({"max_new_tokens": 0}, r"evaluate\.max_new_tokens=0 "),
        ({"turn": "last"}, r"evaluate\.messages=None"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HeldOut("rows.jsonl", **settings)


def test_a_response_is_generated_only_for_measures_that_need_one(model):
    assert HeldOut("x", measures=[LIKELIHOOD]).num_new(model, 9) == 0
    assert HeldOut("x", measures=[EXACT_MATCH]).num_new(model, 9) == 9
    assert HeldOut("x").num_new(replace(model, max_tokens=10), 9) == 5
    assert HeldOut("x", max_new_tokens=3).num_new(model, 9) == 3


def test_the_identity_is_the_content_and_what_is_asked_of_it(tmp_path, model):
    spec = HeldOut(jsonl(tmp_path / "a.jsonl", ROWS))
    same = [
        replace(spec, path=jsonl(tmp_path / "b.jsonl", ROWS)),
        replace(spec, overlap="drop"),
        replace(spec, near=0.8),
    ]
    others = [
        replace(spec, path=jsonl(tmp_path / "c.jsonl", ROWS[:1])),
        replace(spec, limit=1),
        replace(spec, measures=[LIKELIHOOD]),
        replace(spec, max_new_tokens=3),
        replace(spec, overlap="keep"),
        replace(
            spec, options=jsonl(tmp_path / "d.jsonl", [{"task": "who", "response": t} for t in ("a dog", "a fox")])
        ),
    ]
    key = lambda asked: Evaluate(model, None, asked, TrainerSpec("cpu")).key  # noqa: E731
    assert {key(each) for each in same} == {key(spec)}
    assert len({key(each) for each in (spec, *others)}) == 1 + len(others)
