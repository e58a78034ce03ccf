"""What annotators give back in files: every row is used, waited for, or told of with its file and line."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aliquot.annotators.file import FileAnnotator
from aliquot.annotators.people import ADJUDICATE, ADJUDICATED, PROBLEMS, RETURNED, SECOND
from aliquot.store import Pending

PROMPTS = {"q1": "Say hello.\nTwice.", "q2": "What is 17 * 23?", "7": "Wie heißt „du“ auf Englisch?\u2028Sag es."}
ANSWERS = {"q1": "Hello, hello.", "q2": "391,\nas a number", "7": "„you“ ☔"}


@pytest.fixture
def batch(tmp_path):
    folder = tmp_path / "batch"
    (folder / RETURNED / SECOND).mkdir(parents=True)
    return folder


def annotate(batch, prompts=PROMPTS, **settings):
    """Return the responses that are used, or what is said of those that are not."""
    people = FileAnnotator(folder=str(batch), **settings)
    ids, texts = list(prompts), list(prompts.values())
    people.check(None)
    digest = people.digest(ids, texts)
    try:
        annotated = people.annotate(None, ids, texts, batch)
    except Pending as pending:
        assert digest is None
        return str(pending)
    assert digest is not None
    assert all(PROMPTS[i] == prompt for i, prompt in zip(annotated.ids, annotated.prompts, strict=True))
    return dict(zip(annotated.ids, annotated.responses, strict=True))


def write(batch, name, text, **options):
    (batch / RETURNED / name).write_text(text, encoding=options.get("encoding", "utf-8"), newline="")


def jsonl(batch, *rows, name="a.jsonl"):
    write(batch, name, "".join(json.dumps(row) + "\n" for row in rows))


def problems(batch):
    """Return line, id and problem of each row of problems.csv."""
    if not (batch / PROBLEMS).exists():
        return []
    with open(batch / PROBLEMS, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [(row["place"].rpartition("/")[2], row["id"], row["problem"]) for row in rows]


def rows(answers=ANSWERS):
    return [{"id": row_id, "response": text} for row_id, text in answers.items()]


def as_csv(batch):
    with open(batch / RETURNED / "a.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["id", "response"])
        writer.writeheader()
        writer.writerows(rows())


def as_parquet(batch):
    pq.write_table(pa.Table.from_pylist(rows()), batch / RETURNED / "a.parquet")


def as_gz(batch):
    text = "".join(json.dumps(row) + "\n" for row in rows())
    (batch / RETURNED / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))


@pytest.mark.parametrize("write_them", [lambda batch: jsonl(batch, *rows()), as_csv, as_parquet, as_gz])
def test_every_format_gives_the_same_responses(batch, write_them):
    write_them(batch)
    assert annotate(batch) == ANSWERS and not problems(batch)


def test_the_file_that_was_asked_with_comes_back_filled_in(batch):
    annotate(batch)
    asked = [json.loads(line) for line in (batch / "to_annotate.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert {row["id"]: row["prompt"] for row in asked} == PROMPTS
    jsonl(batch, *(row | {"response": ANSWERS[row["id"]]} for row in asked))
    assert annotate(batch) == ANSWERS


def test_each_wrong_row_is_told_with_its_file_and_line_and_no_other_is_lost(batch):
    write(
        batch,
        "a.jsonl",
        '{"id": "q1", "response": "Hello, hello."}\n'
        '{"id": "q2", "prompt": "What is 17 * 24?", "response": "408"}\n'
        '{"id": "q9", "response": "?"}\n'
        '{"id": "q1", "response": "Hi."}\n'
        '{"id": 7, "response": "  "}\n'
        '{"id": "q2", "response": ["391"]}\n'
        '{"id": "q2"}\n',
    )
    told = [
        ("a.jsonl:2", "q2", "the prompt was edited, so the response may answer something else"),
        ("a.jsonl:3", "q9", "nobody asked for this id"),
        ("a.jsonl:4", "q1", f"another response to this prompt is at {batch}/returned/a.jsonl:1"),
        ("a.jsonl:6", "q2", "response is list, not text; write text"),
        ("a.jsonl:7", "", "no column 'response'; the columns are id"),
        ("a.jsonl:5", "7", "the response is empty"),
    ]
    message = annotate(batch)
    assert "2 of 3 prompts wait for their responses (1 came back empty)" in message
    assert f"5 returned rows cannot be used, the first at {batch}/returned/a.jsonl:2: the prompt was edited" in message
    assert problems(batch) == told
    assert annotate(batch, allow_partial=True) == {"q1": "Hello, hello."}
    assert problems(batch) == told
    jsonl(batch, *rows())
    assert annotate(batch) == ANSWERS
    assert not (batch / PROBLEMS).exists()


@pytest.mark.parametrize(
    ("name", "content", "place", "what"),
    [
        ("latin.csv", b"id,response\n7,you\nq2,na\xefve\n", "latin.csv", "latin.csv:3: the line is no UTF-8"),
        ("wide.jsonl", json.dumps(rows()[0]).encode("utf-16"), "wide.jsonl", "wide.jsonl:1: the line is no UTF-8"),
        ("cut.jsonl.gz", gzip.compress(b'{"id": "q1", "response": "x"}\n' * 99)[:-9], "cut.jsonl.gz", "cut off"),
        ("notes.docx", b"PK", "notes.docx", "the name tells no format"),
        ("wrong.csv", b"id,answer\n7,you\n", "wrong.csv:2", "no column 'response'; the columns are id, answer"),
    ],
    ids=["latin", "wide", "cut", "notes", "wrong"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_told_of_and_the_others_are_read(batch, name, content, place, what):
    jsonl(batch, *rows())
    (batch / RETURNED / name).write_bytes(content)
    message = annotate(batch)
    assert "cannot be used" in message and "prompts wait" not in message
    assert "Correct that and give the same command again" in message
    assert [(found[0], what in found[2]) for found in problems(batch)][-1] == (place, True)
    assert (batch / RETURNED / name).read_bytes() == content
    assert annotate(batch, allow_partial=True).keys() == ANSWERS.keys()
    (batch / RETURNED / name).unlink()
    assert annotate(batch) == ANSWERS


def test_the_same_response_twice_is_one_and_hidden_files_are_none(batch):
    jsonl(batch, *rows())
    jsonl(batch, *rows(), name="b.jsonl")
    write(batch, ".DS_Store", "\0")
    assert annotate(batch) == ANSWERS and not problems(batch)


def test_what_others_asked_in_this_folder_is_neither_unknown_nor_in_the_way(batch):
    annotate(batch, {"q1": PROMPTS["q1"]})
    annotate(batch, {"q2": PROMPTS["q2"]})
    jsonl(batch, *rows({"q1": "Hello."}), {"id": "q2", "response": "1"}, {"id": "q2", "response": "2"})
    assert annotate(batch, {"q1": PROMPTS["q1"]}) == {"q1": "Hello."}
    assert "1 returned rows cannot be used" in annotate(batch, {"q2": PROMPTS["q2"]})


def test_the_first_annotator_counts_until_somebody_has_decided(batch):
    jsonl(batch, *rows(ANSWERS | {"q2": "391"}), name="z.jsonl")
    second = {"q1": "Hello,  hello.", "q2": "It is 391.", "7": "thou"}
    jsonl(batch, *rows(second), name=f"{SECOND}/a.jsonl")
    assert annotate(batch) == ANSWERS | {"q2": "391"} and not problems(batch)
    assert "2 prompts have two different responses" in annotate(batch, disagreement="wait")
    with open(batch / ADJUDICATE, newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["id"], row["first"], row["second"], row["response"]) for row in table] == [
        ("q2", "391", "It is 391.", ""),
        ("7", ANSWERS["7"], "thou", ""),
    ]

    def decide(*responses):
        with open(batch / RETURNED / ADJUDICATED, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(row | {"response": text} for row, text in zip(table, responses, strict=True))

    decide("It is 391.", "")
    assert "1 prompts have two different responses" in annotate(batch, disagreement="wait")
    assert annotate(batch) == ANSWERS | {"q2": "It is 391."}
    decide("It is 391.", "you")
    assert annotate(batch, disagreement="wait") == ANSWERS | {"q2": "It is 391.", "7": "you"}
    assert not (batch / ADJUDICATE).exists()


def test_a_fraction_is_asked_twice_the_same_prompts_in_every_budget(batch):
    prompts = {f"p{i}": f"prompt {i}" for i in range(1000)}

    def doubled(num_prompts):
        with pytest.raises(Pending):
            FileAnnotator(folder=str(batch), double=0.2).annotate(
                None, list(prompts)[:num_prompts], list(prompts.values())[:num_prompts], batch
            )
        lines = (batch / "to_annotate_second.jsonl").read_text().splitlines()
        return [json.loads(line)["id"] for line in lines]

    some = doubled(500)
    both = doubled(1000)
    assert 70 < len(some) < 130 and 150 < len(both) < 250 and both[: len(some)] == some


def test_what_is_skipped_with_a_reason_does_not_wait(batch, monkeypatch):
    jsonl(batch, *rows({"q1": "Hello."}))
    people = FileAnnotator(folder=str(batch), price=2)
    from aliquot.annotators.returns import Answer

    skips = [Answer("x:1", "q2", None, skipped="harmful"), Answer("x:2", "7", None, skipped="harmful")]
    read = FileAnnotator.answers
    monkeypatch.setattr(FileAnnotator, "answers", lambda self, folder: [*read(self, folder), *skips])
    assert annotate(batch) == {"q1": "Hello."}
    bill = people.bill(list(PROMPTS), list(PROMPTS.values()), batch)
    assert (bill.num_responses, bill.num_asked, bill.cost, bill.left_out) == (1, 3, 2.0, {"harmful": 2})
