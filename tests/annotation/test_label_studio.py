"""Batches that are answered in Label Studio: what goes there and comes back, on a real server and in its exports."""

import csv
import http.server
import json
import re
import shutil
import socket
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
from running_label_studio import HELPER, OWNER, PASSWORD, label_studio
from running_server import fetch_and_annotate

from aliquot.annotation.people.label_studio import INTERFACE, LabelStudio
from aliquot.annotation.people.people import RETURNED
from aliquot.annotation.returned_rows import SUGGESTED
from aliquot.store.store import Pending

#: What Label Studio 1.23.2 exported of a project in which `work` was done, and a second annotator answered q1 as well.
EXPORTS = Path(__file__).parent / "label_studio"
PROMPTS = {
    "q1": "Summarise this in one sentence.\n\n\tDear tenants,\nno water on Tuesday.",
    "q2": "Write a haiku about <b>rain</b> & put it in 'quotes', \"twice\": {{$prompt}} ☔",
    "q3": "https://example.com/what-is-this?",
    "q4": "How do I hurt my neighbour?",
    "q5": "What is 17 * 23?",
}
RESPONSES = {"q1": "No water on Tuesday,\nso fill a bucket.", "q2": "<i>Regen</i> & ☔", "q3": "A URL."}
SKIPPED = {"q4": "harmful: to a neighbour"}


def work(people, tasks):
    """Answer three prompts, skip one with a reason, and leave one with a draft and a prediction only."""
    for row_id, text in RESPONSES.items():
        people.owner.respond(tasks[row_id], text)
    people.owner.skip(tasks["q4"], "harmful", "to a neighbour")
    people.owner.draft(tasks["q5"], "half an answ")
    people.owner.predict(tasks["q5"], "a machine's guess")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with label_studio(tmp_path_factory.mktemp("label_studio")) as running:
        yield running


@pytest.fixture
def batch(server, tmp_path, monkeypatch, request):
    """A batch of its own for each test, in a project that is called like the test."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", server.token)
    return LabelStudio(folder=str(tmp_path / "batch"), url=server.url, project=request.node.name[-40:])


def annotate(batch, prompts=PROMPTS):
    return fetch_and_annotate(batch, prompts)


def read(batch, prompts=PROMPTS):
    batch.fetch()
    return batch.read(prompts)


def test_the_same_command_pushes_then_pulls_what_people_answered_and_goes_on(server, batch):
    message = annotate(batch)
    assert "5 of 5 prompts wait" in message and server.url in message and batch.project in message
    work(server, server.tasks(batch.project))
    returns = read(batch)
    assert returns.responses == RESPONSES and returns.skipped == SKIPPED and not returns.problems
    assert "1 of 5 prompts wait" in annotate(batch)
    partial = LabelStudio(folder=batch.folder, url=batch.url, project=batch.project, allow_partial=True)
    assert list(annotate(partial).ids) == ["q1", "q2", "q3"]
    server.owner.respond(server.tasks(batch.project)["q5"], "391")
    assert dict(zip(annotate(batch).ids, annotate(batch).responses, strict=True)) == {**RESPONSES, "q5": "391"}
    without_server = LabelStudio(folder=batch.folder)
    assert without_server.digest(list(PROMPTS), list(PROMPTS.values())) == batch.digest(
        list(PROMPTS), list(PROMPTS.values())
    )


def test_pushing_again_adds_new_prompts_only_to_the_one_project(server, batch):
    some = {row_id: PROMPTS[row_id] for row_id in ("q1", "q2")}
    annotate(batch, some)
    before = server.tasks(batch.project)
    annotate(batch, some)
    assert server.tasks(batch.project) == before
    annotate(batch)
    after = server.tasks(batch.project)
    assert after.keys() == PROMPTS.keys() and before.items() <= after.items()
    shutil.rmtree(batch.folder)  # a colleague's machine: the project is found by its name
    annotate(batch)
    assert server.tasks(batch.project) == after


def test_many_prompts_are_pushed_in_parts_and_none_is_lost_or_doubled(server, batch, monkeypatch):
    monkeypatch.setattr("aliquot.annotation.people.label_studio_server.TASKS_AT_ONCE", 7)
    annotate(batch, {f"p{i}": f"prompt {i}" for i in range(30)})
    assert len(server.tasks(batch.project)) == 30


def test_two_annotators_of_one_prompt_are_both_heard_by_name(server, batch):
    annotate(batch)
    task = server.tasks(batch.project)["q5"]
    server.owner.respond(task, "391")
    server.helper.respond(task, "It is 391.")
    answers = read(batch).doubled["q5"]
    assert {answer.response for answer in answers} == {"391", "It is 391."}
    assert len({answer.annotator for answer in answers} - {None}) == 2


def test_exports_of_the_server_carried_by_hand_say_what_the_server_says(server, batch, tmp_path):
    annotate(batch)
    work(server, server.tasks(batch.project))
    server.owner.press_skip(server.tasks(batch.project)["q5"])
    (project,) = server.projects(batch.project)
    for kind, name in (("JSON", "all.json"), ("JSON_MIN", "min.json"), ("CSV", "rows.csv")):
        by_hand = LabelStudio(folder=str(tmp_path / kind))
        annotate(by_hand)
        export = server.owner.get(f"/api/projects/{project['id']}/export", exportType=kind, download_all_tasks="true")
        (Path(by_hand.folder) / RETURNED / name).write_bytes(export.content)
        returns = read(by_hand)
        assert returns.responses == RESPONSES and not returns.problems
        assert returns.skipped == SKIPPED | ({"q5": "skipped"} if kind == "JSON" else {})


def test_a_legacy_token_is_refused_in_one_sentence_or_works_where_it_is_enabled(server, batch, monkeypatch):
    legacy = server.owner.get("/api/current-user/token").json()["token"]
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", legacy)
    with pytest.raises(ValueError, match="refuses the key in LABEL_STUDIO_API_KEY") as refusal:
        read(batch)
    assert legacy not in str(refusal.value)
    server.owner.post("/api/jwt/settings", api_tokens_enabled=True, legacy_api_tokens_enabled=True)
    assert "5 of 5 prompts wait" in annotate(batch)


def test_the_key_is_in_no_file_and_no_message(server, batch, tmp_path):
    annotate(batch)
    annotate(batch)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and server.token in file.read_text()]
    assert server.token not in repr(batch) + repr(batch.connect(server.url))


def test_another_project_of_that_name_is_left_alone(server, batch):
    server.owner.post("/api/projects", title=f"{batch.project} of old", label_config="<View></View>")
    read(batch)
    server.owner.post("/api/projects", title=batch.project, label_config="<View></View>")
    with pytest.raises(ValueError, match=r"asks for nothing, .* response and skip"):
        annotate(batch)
    server.owner.post("/api/projects", title=batch.project, label_config="<View></View>")
    with pytest.raises(ValueError, match="2 projects are called"):
        annotate(batch)


@pytest.mark.slow
def test_a_run_asks_the_server_for_leave_before_anything_is_done(run, tmp_path, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "some-key")
    with pytest.raises(ValueError, match="no answer from Label Studio"):
        run("annotator=label_studio", f"annotator.folder={tmp_path / 'batch'}", "annotator.url=http://127.0.0.1:1")
    assert not (tmp_path / "store").exists() and not (tmp_path / "batch").exists()


@pytest.mark.browser
def test_what_is_typed_into_the_page_is_what_is_pulled(server, batch):
    browsers = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium to open the page with")
    annotate(batch, {"q1": PROMPTS["q1"]})
    (project,) = server.projects(batch.project)
    with browsers.sync_playwright() as play:
        page = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
        page.goto(f"{server.url}/user/login/")
        page.fill("input[name=email]", OWNER)
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.goto(f"{server.url}/projects/{project['id']}/data?labeling=1")
        page.get_by_text("Labeling Instructions").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text(PROMPTS["q1"].splitlines()[-1]).wait_for(state="attached")
        page.get_by_placeholder("The response to the prompt").fill(RESPONSES["q1"])
        with page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            page.get_by_role("button", name="Submit").first.click()
    assert read(batch, {"q1": PROMPTS["q1"]}).responses == {"q1": RESPONSES["q1"]}


def by_hand(tmp_path, *exports):
    """A batch without a server, into which files were returned."""
    batch = LabelStudio(folder=str(tmp_path / "batch"))
    batch.ask(PROMPTS)
    for file in exports:
        shutil.copy(file, tmp_path / "batch" / RETURNED)
    return batch


@pytest.mark.parametrize("name", ["export.json", "snapshot.json", "export_min.json", "export.csv"])
def test_every_export_yields_each_annotation_with_its_annotator_and_no_draft_or_prediction(tmp_path, name):
    answers = by_hand(tmp_path, EXPORTS / name).answers(tmp_path / "batch")
    assert all(answer.prompt == PROMPTS[answer.id] for answer in answers)
    written = {(answer.id, answer.response, answer.annotator) for answer in answers if answer.response}
    first, second = (OWNER, HELPER) if name == "snapshot.json" else ("1", "2")
    assert written == {(row_id, text, first) for row_id, text in RESPONSES.items()} | {("q1", "Fill a bucket.", second)}
    skipped = {(answer.id, answer.skipped) for answer in answers if answer.skipped}
    assert skipped == {*SKIPPED.items()} | ({("q2", "skipped")} if name in ("export.json", "snapshot.json") else set())
    assert all(name in answer.place for answer in answers)


def test_a_text_that_a_script_wrote_without_its_list_is_read_whole(tmp_path):
    result = [{"from_name": "response", "type": "textarea", "value": {"text": "391"}}]
    row = {"id": 5, "data": {"prompt_id": "q5", "prompt": PROMPTS["q5"]}, "annotations": [{"result": result}]}
    batch = by_hand(tmp_path)
    (tmp_path / "batch" / RETURNED / "export.json").write_text(json.dumps([row]))
    (answer,) = batch.answers(tmp_path / "batch")
    assert answer.response == "391"


def test_the_tasks_hold_every_prompt_as_it_is_and_the_interface_asks_for_response_and_reason(tmp_path):
    by_hand(tmp_path)
    tasks = json.loads((tmp_path / "batch" / LabelStudio.imported).read_text(encoding="utf-8"))
    assert {task["data"]["prompt_id"]: task["data"]["prompt"] for task in tasks} == PROMPTS
    tags = {
        tag.get("name"): tag.tag for tag in ElementTree.parse(tmp_path / "batch" / INTERFACE).iter() if tag.get("name")
    }
    assert tags == {"prompt": "Text", "response": "TextArea", "skip": "Choices", "comment": "TextArea"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cut.json", '[{"id": 1,\n "data": ', "cut.json:2: not JSON"),
        ("one.json", '{"id": 1}', "not a list of objects"),
        ("numbers.json", "[1, 2]", "not a list of objects"),
        ("latin.json", b'["\xe9"]', "not UTF-8"),
        ("export.conll", "-DOCSTART-", "export the project as JSON, JSON_MIN or CSV"),
    ],
)
def test_what_is_no_export_is_a_problem_that_names_the_file(tmp_path, name, text, message):
    batch = by_hand(tmp_path)
    (tmp_path / "batch" / RETURNED / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (problem,) = batch.answers(tmp_path / "batch")
    assert re.search(message, f"{problem.place}: {problem.what}")


@pytest.mark.slow
def test_without_a_server_or_with_a_stranger_at_its_address_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "some-key")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ValueError, match="no answer from Label Studio"):
            LabelStudio(folder=str(tmp_path), url=f"http://127.0.0.1:{closed.getsockname()[1]}").check(None)
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        with pytest.raises(ValueError, match=r"returned 404 .* not an answer from Label Studio") as refusal:
            LabelStudio(folder=str(tmp_path), url=f"http://127.0.0.1:{stranger.server_port}").check(None)
        stranger.shutdown()
    assert "some-key" not in str(refusal.value)
    with pytest.raises(ValueError, match="no answer from Label Studio"):
        LabelStudio(folder=str(tmp_path), url="localhost:8080").check(None)
    with pytest.raises(ValueError, match="a name of 2 characters"):
        LabelStudio(folder=str(tmp_path), url="http://localhost:1", project="qa").check(None)
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    with pytest.raises(ValueError, match="LABEL_STUDIO_API_KEY is not set"):
        LabelStudio(folder=str(tmp_path), url="http://localhost:1").check(None)


def test_without_the_http_client_one_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "key")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    batch = LabelStudio(folder=str(tmp_path / "batch"), url="http://localhost:8080")
    with pytest.raises(ValueError, match=r"needs the package httpx2, .* pip install 'aliquot\[label-studio\]'"):
        batch.connect(batch.url).check()


def test_cells_with_several_texts_are_read_and_one_bad_row_is_one(tmp_path):
    batch, file = by_hand(tmp_path), tmp_path / "batch" / RETURNED / "rows.json"
    cells = [{"text": ["a", "b"]}, '{"text": ["a", "b"]}', ["a", "b"], '["a", "b"]', "[a", '{"a": 1}', 7]
    file.write_text(json.dumps([{"id": i, "prompt_id": "q1", "response": cell} for i, cell in enumerate(cells)]))
    *answers, problem = batch.answers(tmp_path / "batch")
    assert [answer.response for answer in answers] == ["a\nb"] * 4 + ["[a", '{"a": 1}']
    assert problem.what == "response is int, not one text; use the labeling interface in label_studio_interface.xml"


def test_an_export_of_other_controls_is_told_of_once(tmp_path):
    batch, file = by_hand(tmp_path), tmp_path / "batch" / RETURNED / "rows.json"
    result = [{"from_name": "answer", "value": {"text": ["a"]}}]
    file.write_text(json.dumps([{"data": {"prompt_id": "q1"}, "annotations": [{"result": result}]}] * 3))
    (problem,) = batch.answers(tmp_path / "batch")
    assert "none of its 3 rows can be read" in problem.what and "only 'answer';" in problem.what


def test_predictions_are_no_responses_and_that_is_said(tmp_path):
    batch, folder = by_hand(tmp_path), tmp_path / "batch"
    tasks = [{"data": {"prompt_id": i, "prompt": p}, "annotations": [], "predictions": [1]} for i, p in PROMPTS.items()]
    (folder / RETURNED / "rows.json").write_text(json.dumps(tasks))
    with pytest.raises(Pending, match=rf"\({len(tasks)} with only a prediction, which does not count\)"):
        batch.annotate(None, list(PROMPTS), list(PROMPTS.values()), tmp_path)
    with open(folder / "problems.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["problem"]) for row in rows] == [(row_id, SUGGESTED) for row_id in PROMPTS]


def test_a_file_that_cannot_be_read_is_a_problem_and_others_are_read_all_the_same(tmp_path):
    batch, folder = by_hand(tmp_path), tmp_path / "batch"
    (folder / RETURNED / "a.json").write_text("{")
    (folder / RETURNED / "b.pdf").write_text("x")
    (folder / RETURNED / "c.csv").write_text("prompt_id,response\n,\nq1,Hello\n")
    batch.check(None)
    with pytest.raises(Pending, match=r"2 returned .*a\.json:1: not JSON"):
        batch.annotate(None, list(PROMPTS), list(PROMPTS.values()), tmp_path)
    with open(folder / "problems.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["place"].rpartition("/")[2] for row in rows] == ["a.json:1", "b.pdf"]
    assert "not a readable export of Label Studio" in rows[1]["problem"]
    assert batch.read(PROMPTS).responses == {"q1": "Hello"}


def test_other_controls_ids_that_became_numbers_and_endings_in_upper_case_do_no_harm(tmp_path):
    folder = tmp_path / "batch"
    batch = LabelStudio(folder=str(folder))
    batch.ask({"7": "Why?"})
    results = [{"from_name": "response", "value": {"text": ["So."]}}, {"from_name": "prompt", "value": {"labels": []}}]
    task = {"data": {"prompt_id": 7, "prompt": "Why?"}, "annotations": [{"result": results}]}
    (folder / RETURNED / "export.JSON").write_text(json.dumps([task]))
    assert batch.read({"7": "Why?"}).responses == {"7": "So."}


def test_tasks_that_come_back_as_they_were_imported_are_told_of_as_empty(tmp_path):
    batch, folder = by_hand(tmp_path), tmp_path / "batch"
    shutil.copy(folder / LabelStudio.imported, folder / RETURNED)
    with pytest.raises(Pending, match=rf"\({len(PROMPTS)} came back empty\)"):
        batch.annotate(None, list(PROMPTS), list(PROMPTS.values()), tmp_path)


def test_a_row_with_too_many_cells_hides_none_of_those_behind_it(tmp_path):
    batch, file = by_hand(tmp_path), tmp_path / "batch" / RETURNED / "rows.csv"
    file.write_text("prompt_id,response,annotation_id\nq1,a,b,1\nq2,c,2\n")
    returns = batch.read(PROMPTS)
    assert returns.responses == {"q2": "c"}
    assert [problem.place for problem in returns.problems] == [f"{file}:2"]
