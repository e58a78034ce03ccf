"""Held-out rows that also stand in the pool."""

import json
import re
from dataclasses import replace

import pytest

from aliquot.evaluation.held_out.overlap import compare
from aliquot.evaluation.held_out.spec import HeldOut
from aliquot.pools.near_duplicates import near_twins
from aliquot.types import Pool

LONG = "Write one short sentence about the {} that sleeps all day under the old tree in the garden of my aunt ."
PROMPTS = ["What is a fox ?", LONG.format("cat"), "Say  hello .", LONG.format("cat") + " Thanks .", "Name a tree ."]


def held_out(tmp_path, *prompts, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"r{i}", "prompt": p, "response": "x"}) + "\n" for i, p in enumerate(prompts))
    )
    return HeldOut(str(path), **settings)


def pool(prompts=PROMPTS, tasks=None):
    return Pool("mine", [f"p{i}" for i in range(len(prompts))], prompts, tasks)


def test_equal_and_nearly_equal_prompts_are_found_and_no_others(tmp_path):
    spec = held_out(tmp_path, "Say hello .", "What is a dog ?", LONG.format("cat") + " Thank you .", LONG.format("dog"))
    found = compare(spec.rows(), pool(), 0.8)
    assert [(twin.row, twin.pool_id, twin.exact) for twin in found.twins] == [(0, "p2", True), (2, "p1", False)]
    assert found.kept(spec, 4) == [1, 3]
    assert found.kept(replace(spec, overlap="keep"), 4) == [0, 1, 2, 3]


def test_a_row_near_any_prompt_is_found_even_where_prompts_are_near_each_other():
    words = [f"w{i}" for i in range(60)]
    first, second, text = (" ".join(words[start : start + 50]) for start in (0, 5, 10))

    def similarity(one, other):
        runs = [{tuple(text.split()[i : i + 5]) for i in range(46)} for text in (one, other)]
        return len(runs[0] & runs[1]) / len(runs[0] | runs[1])

    assert similarity(text, first) < 0.7 <= similarity(text, second) <= similarity(first, second)
    assert near_twins([text], [first, second], 0.7) == {0: 1}


def test_refusing_names_the_first_row_and_the_ways_out(tmp_path):
    spec = held_out(tmp_path, "What is a dog ?", "Say hello .", "Name a tree .")
    found = compare(spec.rows(), pool(), 0.9)
    with pytest.raises(ValueError, match=r"2 held-out .* row 2 \(id r1\), equal to prompt p2; .*drop"):
        found.check(spec)
    found.check(replace(spec, overlap="drop"))
    assert found.line(replace(spec, overlap="drop")) == "2 held-out rows are also in the pool (2 exactly): dropped"
    assert "kept" in str(found.line(replace(spec, overlap="keep")))


def test_dropping_all_rows_is_an_error(tmp_path):
    spec = held_out(tmp_path, "Say hello .", overlap="drop")
    with pytest.raises(ValueError, match="all 1 rows are also in the pool"):
        compare(spec.rows(), pool(), 0.9).check(spec)


def test_the_pools_task_shares_are_counted(tmp_path):
    spec = held_out(tmp_path, "What is a dog ?")
    assert compare(spec.rows(), pool(tasks=["a", "b", "a", "a", "b"]), 0.9).shares == {"a": 0.6, "b": 0.4}
    assert compare(spec.rows(), pool(), 0.9).shares is None


@pytest.mark.slow
def test_a_run_refuses_before_anything_is_chosen_and_drops_when_told_to(run, tmp_path, capsys, prepared_rows):
    path, taken = prepared_rows
    asked = ["strategy=random", "evaluate=heldout", f"evaluate.path={path}"]
    with pytest.raises(ValueError, match=rf"1 held-out row .* \(1 exactly\): .* equal to prompt {taken}"):
        run(*asked)
    assert not list((tmp_path / "store").glob("select/*"))
    assert "dropped" not in capsys.readouterr().out
    run(*asked, "evaluate.overlap=drop")
    said = capsys.readouterr().out
    assert "also in the pool (1 exactly): dropped" in said
    (record,) = (tmp_path / "store" / "runs").glob("*/results.json")
    counts = {metric["num_questions"] for metric in json.loads(record.read_text())["finetuned"]}
    assert counts == {3}
    evaluated = [json.loads(file.read_text()) for file in (tmp_path / "store").glob("evaluate/*/metrics.json")]
    assert [record["num_in_pool"] for record in evaluated] == [1, 1]


@pytest.mark.slow
def test_the_rows_can_be_kept_out_of_the_pool_instead(run, capsys, prepared_rows):
    path, _ = prepared_rows
    asked = ["strategy=random", "evaluate=heldout", f"evaluate.path={path}", "until=select"]
    run(*asked, "pool.clean.decontaminate=[evaluate]", "pool.clean.overlap=6")
    assert re.search(r"[1-9]\d* in a benchmark", capsys.readouterr().out)


def test_the_comparison_depends_on_the_prompts_alone(tmp_path):
    from aliquot.pools.spec import JsonlPool
    from aliquot.stages import Overlap, Prepare

    spec = held_out(tmp_path, "What is a dog ?", "Say hello .")
    source = Prepare(JsonlPool(path=spec.path), digest="x")
    key = lambda **changes: Overlap(source, replace(spec, **changes)).key  # noqa: E731
    assert key() == key(measures=["likelihood"]) == key(max_new_tokens=3) == key(overlap="keep")
    assert len({key(), key(limit=1), key(near=0.5), key(prompt="response")}) == 4


@pytest.fixture
def prepared_rows(tmp_path):
    """Four rows, of which one is the first prompt of the demo pool, and the id of that prompt."""
    import gzip

    from aliquot.demo import HELD_OUT, POOL

    with gzip.open(POOL, "rt") as file:
        taken = json.loads(file.readline())
    path = tmp_path / "own.jsonl"
    path.write_text("".join([json.dumps(taken) + "\n", *HELD_OUT.read_text().splitlines(keepends=True)[:3]]))
    return path, taken["id"]
