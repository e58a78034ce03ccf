"""The target: read like a pool, compared with the pool, and refused where it says nothing."""

from __future__ import annotations

import json

import pytest

from aliquot.pools.cleaning import PoolReport
from aliquot.pools.prepare import load_prepared
from aliquot.pools.target import TargetFile, prepare_target
from aliquot.store.store import canonical
from aliquot.types import Pool

POOL = Pool("small", ["0", "1"], ["Name a color that the sky has.", "one two three four five six seven eight nine ten"])


def written(folder, *prompts, **more):
    file = folder / "target.jsonl"
    file.write_text("".join(json.dumps({"id": str(i), "prompt": p} | more) + "\n" for i, p in enumerate(prompts)))
    return TargetFile(path=str(file))


def prepared(source, folder):
    prepare_target(source, POOL, folder)
    return load_prepared(folder, source.name), PoolReport.read(folder)


def test_prompts_are_read_with_their_labels_and_without_responses(tmp_path):
    target, report = prepared(written(tmp_path, "a b", "c d", task="t", response="secret"), tmp_path)
    assert list(target.prompts) == ["a b", "c d"] and list(target.tasks) == ["t", "t"]
    assert report.line("target") is None
    assert "secret" not in "".join(f.read_text(errors="ignore") for f in tmp_path.iterdir() if f.name != "target.jsonl")


@pytest.mark.parametrize(
    "twin", ["Name  a color\tthat the sky has.", "one two three four five six seven eight nine ten"]
)
def test_a_prompt_of_the_pool_is_dropped_and_reported_or_kept_and_reported(tmp_path, twin):
    source = written(tmp_path, "something else", twin)
    target, report = prepared(source, tmp_path)
    assert list(target.prompts) == ["something else"]
    assert report.line("target") == "pool 'target': 1 of 2 rows is left (1 also in the pool)"
    (dropped,) = map(json.loads, (tmp_path / "dropped.jsonl").read_text().splitlines())
    assert (dropped["id"], dropped["reason"]) == ("1", "in_pool") and dropped["of"] in POOL.ids
    before = report.digest
    (tmp_path / "kept").mkdir()
    target, report = prepared(TargetFile(path=source.path, in_pool="keep"), tmp_path / "kept")
    assert len(target) == 2 and "1 of its prompts is also in the pool" in report.line("target")
    assert report.digest != before


def test_a_target_that_is_the_pool_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"all 2 prompts of the target are also in pool 'small'.*target.in_pool=keep"):
        prepared(written(tmp_path, *POOL.prompts), tmp_path)


def test_an_empty_target_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"target.path=.* holds no prompts: it has no rows"):
        prepared(written(tmp_path), tmp_path)


def test_repeated_ids_are_refused_by_line(tmp_path):
    file = tmp_path / "target.jsonl"
    file.write_text('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n')
    with pytest.raises(ValueError, match=r"target.jsonl:2: id 'x' was already used in line 1.*target.id=null"):
        prepared(TargetFile(path=str(file)), tmp_path)


def test_a_row_without_a_prompt_is_refused_under_the_name_of_the_setting(tmp_path):
    file = tmp_path / "target.jsonl"
    file.write_text('{"id": "x", "text": "a"}\n')
    with pytest.raises(ValueError, match=r"target\.prompt") as told:
        prepared(TargetFile(path=str(file)), tmp_path)
    assert "pool.prompt" not in str(told.value)


@pytest.mark.parametrize("name", ["nowhere.jsonl", "target.txt"])
def test_what_is_not_a_file_of_prompts_is_refused(tmp_path, name):
    (tmp_path / "target.txt").touch()
    with pytest.raises(ValueError, match=r"target.path=.*is not a file of prompts"):
        TargetFile(path=str(tmp_path / name)).check()


def test_what_in_pool_means_is_checked():
    with pytest.raises(ValueError, match="drop nor keep"):
        TargetFile(in_pool="refuse")


def test_the_key_is_that_of_the_content_and_of_what_is_done_with_the_pool(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    assert canonical(written(one, "a")) == canonical(written(two, "a"))
    assert canonical(written(one, "a")) != canonical(written(two, "b"))
    assert canonical(written(one, "a")) != canonical(TargetFile(path=written(two, "a").path, in_pool="keep"))


def test_the_same_bytes_read_in_another_format_have_another_key(tmp_path):
    for name in ("prompts.csv", "prompts.tsv"):
        (tmp_path / name).write_text("prompt\na,b\n")
    one, two = (canonical(TargetFile(path=str(tmp_path / name))) for name in ("prompts.csv", "prompts.tsv"))
    assert one != two


@pytest.mark.parametrize(("field", "value"), [("limit", 0), ("turn", "last")])
def test_settings_are_named_as_the_target_names_them(field, value):
    with pytest.raises(ValueError, match=rf"^target\.{field}={value}"):
        TargetFile(**{field: value})


def test_a_hint_about_a_column_names_the_settings_of_the_target(tmp_path):
    file = tmp_path / "target.jsonl"
    file.write_text('{"id": "x", "prompt": "a", "Task": "t"}\n')
    _, report = prepared(TargetFile(path=str(file)), tmp_path)
    assert "target.task=Task" in report.line("target") and "pool.task" not in report.line("target")
