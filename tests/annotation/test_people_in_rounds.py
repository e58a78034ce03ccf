"""Rounds with people: each round asks for what is new, and what is chosen stays chosen."""

from __future__ import annotations

import json

import pytest

from aliquot.experiment.record import RunRecord

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.slow]
ROUNDS = ("strategy=allocation", "annotator=file", "rounds=2", "budget=20")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "batch"


@pytest.fixture
def work(run, folder):
    return lambda *more: run(*ROUNDS, f"annotator.folder={folder}", *more)


def asked(folder):
    return [json.loads(line) for line in (folder / "to_annotate.jsonl").read_text(encoding="utf-8").splitlines()]


def answer(folder, rows, name, say="the answer to {id}"):
    (folder / "returned").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row | {"response": say.format(**row)}) + "\n" for row in rows)
    (folder / "returned" / name).write_text(text, encoding="utf-8")


def done(tmp_path, stage):
    return sorted(path.parent for path in tmp_path.glob(f"store/{stage}/*/stage.json"))


def trained_on(tmp_path):
    """The responses of each finished annotation, smallest first."""
    files = [folder / "annotated.jsonl" for folder in done(tmp_path, "annotate")]
    rows = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    return sorted(({row["id"]: row["response"] for row in of} for of in rows), key=len)


def test_the_same_command_asks_round_by_round_and_then_reports(work, folder, tmp_path, capsys):
    assert str(work()) == "nan"
    assert len(asked(folder)) == 10
    answer(folder, asked(folder)[:5], "half.jsonl")
    assert str(work()) == "nan"  # half of a round
    assert len(asked(folder)) == 10
    assert not done(tmp_path, "finetune")
    assert "5 of 10 prompts wait" in " ".join(capsys.readouterr().out.split())
    answer(folder, asked(folder)[5:], "rest.jsonl")
    assert str(work()) == "nan"
    said = " ".join(capsys.readouterr().out.split())
    assert "Round 1 10 annotations" in said
    assert "the next 10 are projected to gain" in said
    assert "10 of 10 prompts wait" in said
    assert len(asked(folder)) == 20
    assert len(done(tmp_path, "finetune")) == 1
    answer(folder, asked(folder)[10:], "second.jsonl")
    assert 0 <= work() <= 1
    assert len(done(tmp_path, "finetune")) == 2
    (path,) = tmp_path.glob("store/runs/*/results.json")
    assert [one.num_annotated for one in RunRecord.read(path.parent).rounds] == [10, 20]
    assert len(asked(folder)) == 20  # nobody is asked again


def test_a_response_that_is_corrected_later_is_trained_on_and_asks_for_no_other_prompts(work, folder, tmp_path):
    work()
    answer(folder, asked(folder), "first.jsonl")
    work()
    before = asked(folder)
    answer(folder, before[:10], "first.jsonl", say="{id} is a much longer answer, which changes every loss")
    assert str(work()) == "nan"
    assert asked(folder) == before
    answer(folder, before[10:], "second.jsonl")
    work()
    first, whole = trained_on(tmp_path)
    assert first[before[0]["id"]] == f"the answer to {before[0]['id']}"
    assert whole[before[0]["id"]].endswith("which changes every loss")
    assert asked(folder) == before


def test_prompts_that_are_left_out_of_a_round_stay_chosen_and_may_be_answered_later(work, folder, tmp_path):
    some = ("annotator.allow_partial=true",)
    work()
    first = asked(folder)
    answer(folder, first[:8], "first.jsonl")
    assert str(work(*some)) == "nan"  # round 2 needs a response of its own
    both = asked(folder)
    assert len(both) == 20
    answer(folder, both[9:], "second.jsonl")
    assert 0 <= work(*some) <= 1
    sizes = [len(of) for of in trained_on(tmp_path)]
    assert sizes == [8, 19]
