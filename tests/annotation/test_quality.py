"""What the page on responses tells."""

import contextlib
import json

import pytest

from aliquot.annotation.people.files import FileAnnotator
from aliquot.annotation.quality import Quality, token_f1
from aliquot.store.store import Pending
from aliquot.types import AnnotatedSet

TEXTS = ["The cat, a dog!", "a cat and the cat's dog", "dog dog", "", "the", "«Über» an 3.5-fold", "cat\n dog"]


@pytest.mark.slow
def test_the_f1_of_words_is_that_of_others_who_score_squad():
    mlqa = pytest.importorskip("lm_eval.tasks.mlqa.utils")  # the evaluation script of MLQA, after that of SQuAD
    pairs = [(one, other) for one in TEXTS for other in TEXTS]
    nothing = {"", "the"}  # neither has a word left: equal for us, as in SQuAD 2.0, and 0 for them
    for one, other in pairs:
        if not {one, other} <= nothing:
            assert token_f1(one, other) == pytest.approx(mlqa.f1_score(one, other, "en")), (one, other)
    assert token_f1("", "the") == 1


def batch(folder, first, second=None, **settings):
    people = FileAnnotator(folder=str(folder), **settings)
    prompts = {row_id: f"prompt of {row_id}" for row_id in first}
    for name, given in (("a.jsonl", first), ("second/a.jsonl", second or {})):
        (folder / "returned" / name).parent.mkdir(parents=True, exist_ok=True)
        rows = ({"id": row_id, "response": text} for row_id, text in given.items())
        (folder / "returned" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with contextlib.suppress(Pending):
        people.annotate(None, list(prompts), list(prompts.values()), folder)
    return " ".join((folder / "quality.html").read_text(encoding="utf-8").split())


def test_the_page_tells_lengths_repetitions_and_what_is_left_out_also_while_prompts_wait(tmp_path):
    first = {"a": "I do not know.", "b": "one two three four five", "c": "I do not  know.", "d": "", "e": "<b>bold</b>"}
    page = batch(tmp_path / "batch", first)
    thrice = batch(tmp_path / "other", {"a": "yes", "b": "no", "c": "yes", "d": "no", "e": "no"})
    assert thrice.index(">no</td><td>3</td>") < thrice.index(">yes</td><td>2</td>"), "the most frequent first"
    assert "<h1>4 responses from people (files)</h1>" in page
    assert "<td>responses</td><td>1</td><td>1</td><td>4</td><td>5</td><td>5</td>" in page
    assert '<td class="text">I do not know.</td><td>2</td> <td>a, c</td>' in page
    assert "<tr><td>unanswered</td><td>1</td></tr>" in page
    assert "No prompt was answered by two annotators" in page


def test_the_page_tells_how_far_two_annotators_agree(tmp_path):
    first = {"a": "the cat sat", "b": "one two", "c": "no"}
    page = batch(tmp_path / "batch", first, {"a": "the  cat sat", "b": "two three"})
    assert "2 prompts were answered by two annotators: 50% of the responses are the same" in page
    assert "F1 of their words is 0.75" in page


def test_responses_are_text_on_the_page_and_none_at_all_is_no_error():
    annotated = AnnotatedSet(["a", "b"], ["p", "q"], ["<script>alert(1)</script>"] * 2)
    page = Quality.of("<i>", annotated, {"<u>": 1}).page()
    assert "<script" not in page and "<i>" not in page and "<u>" not in page and "&lt;script&gt;" in page
    assert "0 responses" in Quality.of("people", AnnotatedSet([], [], []), {"unanswered": 3}).page()
