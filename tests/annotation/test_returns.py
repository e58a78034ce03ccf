"""What annotators give back in files: every row is used, waited for, or told of with its file and line."""

import csv
import gzip
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aliquot.annotation.people.batch import ADJUDICATE, SECOND
from aliquot.annotation.people.files import FileAnnotator
from aliquot.annotation.people.people import PROBLEMS, RETURNED
from aliquot.pools.prepare import load_pool
from aliquot.pools.spec import JsonlPool
from aliquot.store.store import Pending

PROMPTS = {"q1": "Say hello.\nTwice.", "q2": "What is 17 * 23?", "7": "Wie heißt „du“ auf Englisch?\u2028Sag es."}
ANSWERS = {"q1": "Hello, hello.", "q2": "391,\nas a number", "7": "„you“ ☔"}

UNKNOWN = "no prompt of the batch has this id; write the right id, or remove the row"


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
    assert all(prompts[i] == prompt for i, prompt in zip(annotated.ids, annotated.prompts, strict=True))
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
        ("a.jsonl:2", "q2", "the prompt was edited, so the response may answer something else; restore the prompt"),
        ("a.jsonl:3", "q9", UNKNOWN),
        ("a.jsonl:4", "q1", f"another response to this prompt is at {batch}/returned/a.jsonl:1; keep only one of them"),
        ("a.jsonl:6", "q2", "response is list, not text; write text"),
        ("a.jsonl:7", "", "no column 'response'; the columns are id; name it with annotator.response"),
        ("a.jsonl:5", "7", "the response is empty"),
    ]
    message = annotate(batch)
    assert "2 of 3 prompts wait for their responses (1 came back empty)" in message
    assert (
        f"5 returned rows or files cannot be used, the first at {batch}/returned/a.jsonl:2: the prompt was edited"
        in message
    )
    assert problems(batch) == told
    assert annotate(batch, allow_partial=True) == {"q1": "Hello, hello."}
    assert problems(batch) == told
    jsonl(batch, *rows())
    assert annotate(batch) == ANSWERS
    assert not (batch / PROBLEMS).exists()


@pytest.mark.parametrize(
    ("name", "content", "place", "what"),
    [
        ("latin.csv", b"id,response\n7,you\nq2,na\xefve\n", "latin.csv:3", "the line is not UTF-8"),
        ("wide.jsonl", json.dumps(rows()[0]).encode("utf-16"), "wide.jsonl", "UTF-16 text; save it as UTF-8"),
        ("cut.jsonl.gz", gzip.compress(b'{"id": "q1", "response": "x"}\n' * 99)[:-9], "cut.jsonl.gz", "cut off"),
        ("notes.docx", b"PK", "notes.docx", "the name does not show the format"),
        ("wrong.csv", b"id,answer\n7,you\n", "wrong.csv:2", "no column 'response'; the columns are id, answer"),
    ],
    ids=["latin", "wide", "cut", "notes", "wrong"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_told_of_and_the_others_are_read(batch, name, content, place, what):
    jsonl(batch, *rows())
    (batch / RETURNED / name).write_bytes(content)
    message = annotate(batch)
    assert "cannot be used" in message and "prompts wait" not in message
    assert "Correct that and run the same command again" in message
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
    assert "1 returned row or file cannot be used" in annotate(batch, {"q2": PROMPTS["q2"]})


def decide(batch, **responses):
    """Type decisions into the table of disagreements, in place; return it as it was."""
    with open(batch / ADJUDICATE, newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    with open(batch / ADJUDICATE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*table[0], "by"] if "by" not in table[0] else list(table[0]))
        writer.writeheader()
        writer.writerows(
            row | ({"response": responses[row["id"]], "by": "me"} if row["id"] in responses else {}) for row in table
        )
    return [(row["id"], row["first"], row["second"], row["response"]) for row in table]


def test_the_first_annotator_counts_until_somebody_has_decided_and_no_decision_is_lost(batch, caplog):
    caplog.set_level("INFO", "aliquot")
    jsonl(batch, *rows(ANSWERS | {"q2": "391"}), name="z.jsonl")
    second = {"q1": "Hello,  hello.", "q2": "It is 391.", "7": "thou"}
    jsonl(batch, *rows(second), name=f"{SECOND}/a.jsonl")
    assert annotate(batch) == ANSWERS | {"q2": "391"} and not problems(batch)
    assert f"2 prompts have two different responses: fill in the column `response` of {batch}/adjudicate.csv; the" in (
        caplog.text
    )
    message = annotate(batch, disagreement="wait", allow_partial=True)
    assert "2 prompts have two different responses" in message and "allow_partial" not in message
    assert decide(batch, q2="It is 391.") == [("q2", "391", "It is 391.", ""), ("7", ANSWERS["7"], "thou", "")]
    assert "1 prompt has two different responses" in annotate(batch, disagreement="wait")
    assert annotate(batch) == ANSWERS | {"q2": "It is 391."}
    prompts = PROMPTS | {"q4": "What is 2 + 2?"}
    annotate(batch, prompts)
    jsonl(batch, *rows({"q4": "4"}), name="b.jsonl")
    jsonl(batch, *rows({"q4": "four", "7": "ye"}), name=f"{SECOND}/a.jsonl")
    annotate(batch, prompts, disagreement="wait")
    table = decide(batch, **{"7": "you", "q4": "Four."})
    assert table == [
        ("q2", "391", "It is 391.", "It is 391."),
        ("7", ANSWERS["7"], "ye", ""),
        ("q4", "4", "four", ""),
    ]
    assert annotate(batch, disagreement="wait") == ANSWERS | {"q2": "It is 391.", "7": "you"}
    before = (batch / ADJUDICATE).read_bytes()
    assert annotate(batch, prompts, disagreement="wait") == ANSWERS | {"q2": "It is 391.", "7": "you", "q4": "Four."}
    assert (batch / ADJUDICATE).read_bytes() == before
    (batch / ADJUDICATE).write_text("id,choice\nq2,first\n")
    assert "adjudicate.csv:1: no columns 'id' and 'response'" in annotate(batch, disagreement="wait")
    assert (batch / ADJUDICATE).read_text() == "id,choice\nq2,first\n"


def fill_in(file, answers, encoding="utf-8"):
    """Type responses into a file of requests, in place."""
    asked = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    filled = (row | {"response": answers.get(row["id"], row["response"])} for row in asked)
    file.write_text("\n".join(map(json.dumps, filled)), encoding=encoding)  # the last line may lack its end


def test_what_is_typed_into_the_requests_counts_and_stays(batch):
    annotate(batch, double=1)
    fill_in(batch / "to_annotate.jsonl", {"q1": "Hello.", "q2": "391"}, encoding="utf-8-sig")
    fill_in(batch / "to_annotate_second.jsonl", {"q2": "17 * 23 = 391"})
    assert "1 of 3 prompts wait" in annotate(batch, double=1)
    before = (batch / "to_annotate.jsonl").read_bytes()
    assert "2 of 4 prompts wait" in annotate(batch, PROMPTS | {"q4": "What is 2 + 2?"}, double=1)
    assert (batch / "to_annotate.jsonl").read_bytes().startswith(before)
    jsonl(batch, *rows({"7": "you"}))
    jsonl(batch, *rows({"q1": "Hi."}), name=f"{SECOND}/a.jsonl")
    assert annotate(batch) == {"q1": "Hello.", "q2": "391", "7": "you"}
    assert decide(batch) == [("q2", "391", "17 * 23 = 391", ""), ("q1", "Hello.", "Hi.", "")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "q3", "text": "?", "response": ""}', "no text in 'id' and 'prompt', as aliquot wrote them"),
        ('{"id": "q3", "prom', "not a JSON object"),
    ],
)
def test_a_broken_line_of_the_requests_is_told_of(batch, line, message):
    annotate(batch)
    file = batch / "to_annotate.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + line, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as told:
        annotate(batch)
    assert str(told.value).startswith(f"{file}:4: ")


def test_a_response_stays_with_its_prompt_when_a_pool_changes(batch):
    annotate(batch, double=1)
    jsonl(batch, *rows())
    jsonl(batch, *rows({"q2": "393"}), name=f"{SECOND}/a.jsonl")
    changed = PROMPTS | {"q2": "What is 18 * 23?"}
    with pytest.raises(ValueError, match=r"id 'q2' was asked as 'What is 17 \* 23\?', and is now 'What is 18 \* 23\?'"):
        annotate(batch, changed)
    requests = (batch / "to_annotate.jsonl").read_bytes()
    other = dict(zip(("a", "b", "c"), PROMPTS.values(), strict=True))  # the same prompts under other ids
    people = FileAnnotator(folder=str(batch), double=1)
    annotated = people.annotate(None, list(other), list(other.values()), batch)
    assert dict(zip(annotated.ids, annotated.responses, strict=True)) == dict(zip(other, ANSWERS.values(), strict=True))
    assert [[answer.response for answer in given] for given in people.doubled([*other], [*other.values()])] == [
        ["391,\nas a number", "393"]
    ]
    assert (batch / "to_annotate.jsonl").read_bytes() == requests
    assert decide(batch, q2="391") == [("q2", "391,\nas a number", "393", "")]
    assert people.annotate(None, list(other), list(other.values()), batch).responses[1] == "391"
    jsonl(batch, *rows({"a": "Hi, hi."}), name="b.jsonl")  # to the same prompt, under the id that it has now
    assert people.annotate(None, list(other), list(other.values()), batch).responses[0] == "Hi, hi."


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
    from aliquot.annotation.returned_rows import ReturnedRow

    skips = [ReturnedRow("x:1", "q2", None, skipped="harmful"), ReturnedRow("x:2", "7", None, skipped="harmful")]
    read = FileAnnotator.answers
    monkeypatch.setattr(FileAnnotator, "answers", lambda self, folder: [*read(self, folder), *skips])
    assert annotate(batch) == {"q1": "Hello."}
    bill = people.bill(list(PROMPTS), list(PROMPTS.values()), batch)
    assert (bill.num_responses, bill.num_asked, bill.cost, bill.left_out) == (1, 3, 2.0, {"harmful": 2})


def test_columns_in_any_case_are_found_and_mangled_ids_by_the_prompt_beside_them(batch):
    head = "Id, Response ,Prompt\n"
    write(batch, "a.csv", head + '1E+05,"Hello, hello.","Say hello. Twice."\nq2,391,\n7.0,you,\n')
    assert "1 of 3 prompts wait" in annotate(batch)
    assert [found[1:] for found in problems(batch)] == [("7.0", UNKNOWN)]
    jsonl(batch, {"ID": 7.0, "RESPONSE": "you"})
    assert annotate(batch, allow_partial=True) == {"q1": "Hello, hello.", "q2": "391", "7": "you"}
    jsonl(batch, {"ID": 7, "Id": 7, "response": "you"})
    annotate(batch)
    assert [what for _, _, what in problems(batch)] == [
        UNKNOWN, "several columns may be 'id'; the columns are ID, Id, response"
    ]  # fmt: skip


def test_blank_rows_and_files_that_programs_leave_behind_are_no_answers(batch):
    write(batch, "a.csv", "id,response\n" + "".join(f'{i},"{text}"\n' for i, text in ANSWERS.items()) + ",\n , \n")
    for name in ("Thumbs.db", "~$a.csv", "._a.csv", "desktop.ini"):
        write(batch, name, "\0")
    assert annotate(batch) == ANSWERS
    assert problems(batch) == []


def test_an_id_that_became_that_of_another_prompt_is_refused_and_both_are_named(batch):
    jsonl(batch, {"id": "q1", "prompt": PROMPTS["7"], "response": "x"})
    assert "1 returned row or file cannot be used" in annotate(batch)
    ((place, row_id, what),) = problems(batch)
    assert (place, row_id) == ("a.jsonl:1", "q1") and "the prompt in this row has id '7'; write that" in what


def test_answers_under_the_hash_ids_of_before_belong_to_the_same_prompts(batch, tmp_path):
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS.values()))
    pool = load_pool(JsonlPool(str(tmp_path / "pool.jsonl")))
    assert all(row_id[0] == "h" and len(row_id) == 17 for row_id in pool.ids)
    old = {row_id[1:]: prompt for row_id, prompt in zip(pool.ids, pool.prompts, strict=True)}
    FileAnnotator(folder=str(batch)).ask(old)
    jsonl(batch, *({"id": row_id, "response": "x"} for row_id in old))
    assert annotate(batch, dict(zip(pool.ids, pool.prompts, strict=True))) == dict.fromkeys(pool.ids, "x")
    assert annotate(batch, old) == dict.fromkeys(old, "x")


def test_ids_with_blanks_around_them_or_none_but_the_prompt_are_matched(batch):
    write(batch, "a.csv", "id,response\n q1,Hello\n7\xa0,you\n")
    write(batch, "b.csv", 'id,prompt,response\n,"What is 17 * 23?",391\n')
    assert annotate(batch) == {"q1": "Hello", "q2": "391", "7": "you"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,response\nq1,Hello\nq2,391,or so\n7,you\n"),
        ("a.jsonl", '{"id": "q1", "response": "Hello"}\n{"id": \n{"id": "7", "response": "you"}\n'),
    ],
)
def test_one_row_that_cannot_be_read_hides_none_of_those_behind_it(batch, name, text):
    write(batch, name, text)
    assert annotate(batch, allow_partial=True) == {"q1": "Hello", "7": "you"}
    line = 3 if name == "a.csv" else 2
    assert [found[0] for found in problems(batch)] == [f"{name}:{line}"]


@pytest.mark.parametrize("name", ["a.json", "a.JSON", "a.jsonl"])
def test_a_json_array_is_read(batch, name):
    write(batch, name, json.dumps(rows(), indent=1))
    assert annotate(batch) == ANSWERS


def test_a_returned_spreadsheet_is_named_with_advice_that_works(batch):
    with zipfile.ZipFile(batch / RETURNED / "a.xlsx", "w") as sheet:
        sheet.writestr("xl/workbook.xml", "<workbook/>")
    annotate(batch)
    assert ["save the sheet as csv (UTF-8)" in found[2] for found in problems(batch)] == [True]
    (batch / RETURNED / "a.xlsx").unlink()
    write(batch, "a.csv", "id;response\r\nq1;Hello\r\nq2;391\r\n7;you\r\n", encoding="utf-8-sig")
    assert annotate(batch) == {"q1": "Hello", "q2": "391", "7": "you"}
