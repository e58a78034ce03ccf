"""Batches that are answered in Argilla: beside its SDK's types and exports, and on a real server where there is one."""

import gc
import json
import os
import re
import shutil
import socket
import threading
import warnings
from pathlib import Path
from uuid import UUID

import httpx2
import pytest
from running_server import fetch_and_annotate, free_port, running

from aliquot.annotation.people.argilla import Argilla
from aliquot.annotation.people.people import RETURNED
from aliquot.annotation.returned_rows import SUGGESTED
from aliquot.store.store import Pending

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # by the SDK

HERE = Path(__file__).parent
OWNER, HELPER = UUID(int=1), UUID(int=2)
PROMPTS = {
    "q1": "Summarise this in one sentence.\n\n\tDear tenants,\nno water on Tuesday.",
    "q2": "Write a haiku about <b>rain</b> ☔",
    "q3": "What is this?",
    "q4": "How do I hurt my neighbour?",
    "q5": "What is 17 * 23?",
}
DISCARDED = {"skip": "harmful", "comment": "to a neighbour", "response": "Well, you"}
RESPONSES = {"q1": "No water on Tuesday,\nso fill a bucket.", "q2": "Regen ☔", "q3": "A question."}


@pytest.fixture(scope="module")
def rg():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("argilla", reason="the extra 'argilla' is not installed")


def by_hand(tmp_path):
    batch = Argilla(folder=str(tmp_path / "batch"))
    batch.ask(PROMPTS)
    return batch


def annotated(rg):
    """Return the SDK's own records of a dataset that two people worked on."""

    def record(row_id, *given):
        responses = [rg.Response(name, value, user_id=user, status=status) for user, status, name, value in given]
        return rg.Record(id=row_id, fields={"prompt": PROMPTS[row_id]}, responses=responses)

    return [
        record("q1", (OWNER, "submitted", "response", RESPONSES["q1"]), (HELPER, "submitted", "response", "A bucket.")),
        record("q2", (OWNER, "submitted", "response", RESPONSES["q2"]), (HELPER, "draft", "response", "half an ans")),
        record("q3", (HELPER, "submitted", "response", RESPONSES["q3"]), (HELPER, "submitted", "comment", "easy")),
        record("q4", *((OWNER, "discarded", name, text) for name, text in DISCARDED.items())),
        record("q5"),
    ]


@pytest.mark.slow
def test_the_sdk_reads_settings_dataset_and_records_as_they_were_meant(rg, tmp_path):
    from argilla._models import DatasetModel, FieldModel, QuestionModel

    by_hand(tmp_path)
    files = tmp_path / "batch" / Argilla.imported
    settings = json.loads((files / ".argilla" / "settings.json").read_text())
    questions = {question["name"]: QuestionModel(**question) for question in settings["questions"]}
    assert {name: (q.type, q.required) for name, q in questions.items()} == {
        "response": ("text", True), "skip": ("label_selection", False), "comment": ("text", False)
    }  # fmt: skip
    assert [FieldModel(**field).name for field in settings["fields"]] == ["prompt"]
    assert rg.TaskDistribution.from_dict(settings["distribution"]).min_submitted == 1
    assert DatasetModel(**json.loads((files / ".argilla" / "dataset.json").read_text())).name == "batch"
    records = [rg.Record.from_dict(row) for row in json.loads((files / "records.json").read_text(encoding="utf-8"))]
    assert {record.id: record.fields["prompt"] for record in records} == PROMPTS


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_every_flat_export_yields_what_was_submitted_and_discarded_and_no_draft(rg, tmp_path, kind):
    from argilla.records._io import GenericIO
    from datasets import Dataset

    batch, file = by_hand(tmp_path), tmp_path / "batch" / RETURNED / f"export.{kind}"
    if kind == "json":
        file.write_text(json.dumps(GenericIO.to_list(annotated(rg), flatten=True)))
    else:
        rows = Dataset.from_dict(GenericIO.to_dict(annotated(rg), flatten=True))
        rows.to_json(file) if kind == "jsonl" else rows.to_parquet(file)
    answers = batch.answers(tmp_path / "batch")
    assert all(answer.prompt == PROMPTS[answer.id] and str(file) in answer.place for answer in answers)
    assert {(answer.id, answer.response, answer.annotator) for answer in answers if not answer.skipped} == {
        ("q1", RESPONSES["q1"], str(OWNER)), ("q1", "A bucket.", str(HELPER)),
        ("q2", RESPONSES["q2"], str(OWNER)), ("q3", RESPONSES["q3"], str(HELPER)),
    }  # fmt: skip
    assert [(answer.id, answer.skipped, answer.response) for answer in answers if answer.skipped] == [
        ("q4", "harmful: to a neighbour", None)
    ]


def test_nested_records_are_refused_because_they_tell_no_drafts(rg, tmp_path):
    from argilla.records._io import GenericIO

    batch = by_hand(tmp_path)
    nested = json.dumps(GenericIO.to_list(annotated(rg), flatten=False))
    assert "draft" not in nested and "half an ans" in nested
    (tmp_path / "batch" / RETURNED / "records.json").write_text(nested)
    (problem,) = batch.answers(tmp_path / "batch")
    assert "none of its 5 rows can be read" in problem.what
    assert "record 1: a nested record does not tell drafts" in problem.what


def test_an_export_without_the_question_is_told_of_once_and_one_bad_row_is_one(tmp_path):
    batch, file = by_hand(tmp_path), tmp_path / "batch" / RETURNED / "rows.jsonl"
    given = {"answer.responses": ["a"], "answer.responses.users": ["u"], "answer.responses.status": ["submitted"]}
    first = {"prompt": "p", "external_id": "q1", "response": [{"user_id": "u", "value": "a", "status": "submitted"}]}
    for rows, column in (([{"id": "q1", **given}] * 3, "'answer.responses'"), ([first] * 3, "'response'")):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (problem,) = Argilla(folder=batch.folder, price=len(column)).answers(tmp_path / "batch")
        assert problem.place == str(file) and "none of its 3 rows" in problem.what and f"only {column};" in problem.what
    good = {name.replace("answer", "response"): value for name, value in given.items()}
    file.write_text("".join(json.dumps({"id": row_id} | row) + "\n" for row_id, row in (("q1", good), ("q2", given))))
    answer, problem = Argilla(folder=batch.folder, price=1).answers(tmp_path / "batch")
    assert (answer.id, answer.response, problem.id) == ("q1", "a", "q2")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cut.json", "[{", "cut.json:1: not JSON"),
        ("rows.csv", "id,response.responses\nq1,['a']", "as jsonl or parquet"),
    ],
)
def test_what_is_no_flat_export_is_a_problem_that_names_the_file(tmp_path, name, text, message):
    batch = by_hand(tmp_path)
    (tmp_path / "batch" / RETURNED / name).write_text(text)
    (problem,) = batch.answers(tmp_path / "batch")
    assert re.search(message, f"{problem.place}: {problem.what}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # by the SDK, where nothing good answers
@pytest.mark.parametrize("page", [b"HTTP/1.0 404 Not Found", b"HTTP/1.0 200 OK"])
def test_a_stranger_at_the_address_is_told_in_one_sentence(rg, tmp_path, monkeypatch, page):
    monkeypatch.setenv("ARGILLA_API_KEY", "some-key")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        answer = threading.Thread(target=greet, args=(stranger, page + b"\r\n\r\n<html>Hello</html>"), daemon=True)
        answer.start()
        batch = Argilla(folder=str(tmp_path), url=f"http://127.0.0.1:{stranger.getsockname()[1]}")
        with pytest.raises(ValueError, match=r"no answer that could be used \(.*\); check the url"):
            batch.check(None)
        answer.join()
    gc.collect()


def greet(server, page):
    connection, _ = server.accept()
    with connection:
        connection.recv(10_000)
        connection.sendall(page)


def test_without_key_or_server_one_sentence_says_so(rg, tmp_path, monkeypatch):
    batch = Argilla(folder=str(tmp_path), url=f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("ARGILLA_API_KEY", raising=False)
    with pytest.raises(ValueError, match="ARGILLA_API_KEY is not set"):
        batch.check(None)
    monkeypatch.setenv("ARGILLA_API_KEY", "some-key")
    with pytest.raises(ValueError, match="no answer from Argilla") as refusal:
        batch.check(None)
    assert "some-key" not in str(refusal.value)


class Person:
    """Somebody who works in Argilla, and does by the server's API what the page does when they click."""

    def __init__(self, url, key):
        self.url, self.headers = url, {"X-Argilla-Api-Key": key}

    def records(self, dataset):
        """Return prompt id -> number of the record, of the only dataset of this name."""
        (found,) = [d for d in self.get("/api/v1/me/datasets")["items"] if d["name"] == dataset]
        items = self.get(f"/api/v1/datasets/{found['id']}/records?limit=1000")["items"]
        assert len({item["external_id"] for item in items}) == len(items), "a prompt is there twice"
        return {item["external_id"]: item["id"] for item in items}

    def get(self, path):
        return httpx2.get(self.url + path, headers=self.headers).raise_for_status().json()

    def answer(self, record, status, **values):
        given = {name: {"value": value} for name, value in values.items()} or None
        body, path = {"status": status, "values": given}, f"{self.url}/api/v1/records/{record}/responses"
        httpx2.post(path, json=body, headers=self.headers).raise_for_status()


@pytest.fixture(scope="module")
def server(rg, tmp_path_factory):
    """A real server, its owner and one more annotator."""
    python = Path(os.environ.get("ALIQUOT_ARGILLA", "")).absolute()
    if not python.is_file():
        pytest.skip("ALIQUOT_ARGILLA names no Python of an environment with argilla-server and fakeredis")
    folder, port = tmp_path_factory.mktemp("argilla"), free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python), str(HERE / "serve_argilla.py"), str(folder), str(port), "test-key"]
    with running(command, folder, f"{url}/api/v1/version", seconds=300):
        yield url, Person(url, "test-key-owner"), Person(url, "test-key-helper")


@pytest.fixture
def batch(server, tmp_path, monkeypatch, request):
    monkeypatch.setenv("ARGILLA_API_KEY", "test-key-owner")
    return Argilla(folder=str(tmp_path / "batch"), url=server[0], project=request.node.name)


def annotate(batch, prompts=PROMPTS):
    return fetch_and_annotate(batch, prompts)


def test_the_same_command_pushes_to_a_server_then_pulls_and_goes_on(server, batch, tmp_path):
    _, owner, helper = server
    assert "5 of 5 prompts wait" in annotate(batch)
    records = owner.records(batch.project)
    for row_id, text in RESPONSES.items():
        owner.answer(records[row_id], "submitted", response=text)
    helper.answer(records["q1"], "draft", response="half an ans")
    helper.answer(records["q4"], "discarded", skip="harmful", comment="to a neighbour")
    assert "1 of 5 prompts wait" in annotate(batch)
    helper.answer(records["q5"], "discarded")  # by the button alone
    assert dict(zip(annotate(batch).ids, annotate(batch).responses, strict=True)) == RESPONSES
    assert batch.read(PROMPTS).skipped == {"q4": "harmful: to a neighbour", "q5": "discarded"}
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and "test-key" in file.read_text()]


def test_pushing_again_adds_new_prompts_only_to_the_one_dataset(server, batch):
    annotate(batch, {"q1": PROMPTS["q1"]})
    before = server[1].records(batch.project)
    shutil.rmtree(batch.folder)  # a colleague's machine: the dataset is found by its name
    annotate(batch)
    after = server[1].records(batch.project)
    assert after.keys() == PROMPTS.keys() and before.items() <= after.items()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # by the SDK, where a key is wrong
def test_an_annotators_key_and_an_unknown_workspace_are_refused_in_one_sentence(server, batch, monkeypatch):
    with pytest.raises(ValueError, match="has the workspaces people; name one"):
        Argilla(folder=batch.folder, url=batch.url, workspace="nobody").check(None)
    monkeypatch.setenv("ARGILLA_API_KEY", "test-key-helper")
    with pytest.raises(ValueError, match="refuses the key in ARGILLA_API_KEY"):
        annotate(batch)
    monkeypatch.setenv("ARGILLA_API_KEY", "a-wrong-key")
    with pytest.raises(ValueError, match="refuses the key in ARGILLA_API_KEY"):
        batch.check(None)
    gc.collect()


def test_suggestions_are_no_responses_and_that_is_said(tmp_path):
    batch, folder = by_hand(tmp_path), tmp_path / "batch"
    rows = [{"id": i, "prompt": p, "response.suggestion": "x", "response.responses": None} for i, p in PROMPTS.items()]
    (folder / RETURNED / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Pending, match=rf"\({len(rows)} with only a prediction, which does not count\)"):
        batch.annotate(None, list(PROMPTS), list(PROMPTS.values()), tmp_path)
    assert [row.what for row in batch.read(PROMPTS).empty] == [SUGGESTED] * len(rows)


@pytest.mark.parametrize("users", [["u", "v"], []])
def test_values_and_users_of_different_lengths_are_one_bad_row(tmp_path, users):
    batch, folder = by_hand(tmp_path), tmp_path / "batch"

    def row(row_id, users):
        given = {"response.responses": ["a"], "response.responses.users": users}
        return {"id": row_id, "prompt": PROMPTS[row_id], **given, "response.responses.status": ["submitted"]}

    rows = [row("q1", ["u"]), row("q2", users), row("q3", ["u"])]
    (folder / RETURNED / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    returns = batch.read(PROMPTS)
    assert returns.responses == {"q1": "a", "q3": "a"}
    (problem,) = returns.problems
    assert (problem.place.rpartition("/")[2], problem.id) == ("rows.jsonl:2", "q2")
    assert "are not lists of the same length" in problem.what


@pytest.mark.parametrize("changed", [{"prompt": ["p"]}, {"response.responses": [5]}])
def test_a_row_whose_texts_are_none_is_one_bad_row(tmp_path, changed):
    batch, folder = by_hand(tmp_path), tmp_path / "batch"
    given = {"response.responses": ["a"], "response.responses.users": ["u"], "response.responses.status": ["submitted"]}
    rows = [{"id": "q1", "prompt": PROMPTS["q1"], **given, **changed}, {"id": "q2", "prompt": PROMPTS["q2"], **given}]
    (folder / RETURNED / "rows.jsonl").write_text(json.dumps(rows[0]) + "\n{\n" + json.dumps(rows[1]))
    returns = batch.read(PROMPTS)
    assert returns.responses == {"q2": "a"}
    assert sorted(problem.place.rpartition(":")[2] for problem in returns.problems) == ["1", "2"]
    assert any("not text; write text" in problem.what for problem in returns.problems)
