"""Answers of people and teachers that broke neighboring tools: used and charged, or told of in one line."""

import csv
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("default")


def own(case, *overrides):
    """Return the overrides for all prompts of a case."""
    file = HERE / case
    num = len(file.read_text(encoding="utf-8").splitlines())
    return "pool=jsonl", f"pool.path={file}", f"budget={num}", "strategy=random", "until=annotate", *overrides


def people(kind, case, returned, run, tmp_path):
    """Hand out the prompts of a case, give a file back, and run again."""
    folder = tmp_path / "batch"
    overrides = own(case, f"annotator={kind}", f"annotator.folder={folder}")
    run("pool.limit=null", *overrides)
    shutil.copy(HERE / returned, folder / "returned")
    run("pool.limit=null", *overrides)
    return folder


def annotated(tmp_path):
    """Return id -> response of what would be trained on, or None where the run waits."""
    files = list(tmp_path.glob("store/annotate/*/annotated.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row["response"] for row in rows} if files else None


def problems(folder):
    with open(folder / "problems.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_file_of_argilla_1_is_told_of_on_the_terminal_and_in_the_problems(run, tmp_path, capsys):
    folder = people("argilla", "argilla/prompts.jsonl", "argilla/v1.jsonl", run, tmp_path)
    assert annotated(tmp_path) is None
    (problem,) = problems(folder)
    assert problem["place"] == str(folder / "returned" / "v1.jsonl")
    assert "none of its 4 rows can be read" in problem["problem"]
    assert "give back what dataset.records.to_datasets() of Argilla 2 writes" in problem["problem"]
    assert "none of its 4 rows can be read" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_cells_that_hold_json_of_label_studio_are_decoded(run, tmp_path):
    people("label_studio", "label-studio/prompts.jsonl", "label-studio/csv_two_texts/project.csv", run, tmp_path)
    others = {f"q{i}": f"Answer {i}." for i in range(3, 8)}
    assert annotated(tmp_path) == {"q0": "Because of\nRayleigh scattering.", "q1": "Because\nit scatters."} | others


@pytest.mark.slow
def test_a_returned_file_of_old_mac_line_ends_and_upper_case_is_read(run, tmp_path):
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"id": f"u{i}", "prompt": f"Hill {i}?"}) + "\n" for i in range(3)))
    people("file", pool, "endings/MONDAY.CSV", run, tmp_path)
    assert annotated(tmp_path) == {f"u{i}": "Aventine." for i in range(3)}


class Server:
    """Runs the server of the case in a process of its own."""

    def __init__(self, mode, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "asked.jsonl"
        command = [sys.executable, str(HERE / "teacher" / "server.py"), mode, str(self.port), str(self.log)]
        self.process = subprocess.Popen(command)

    def __enter__(self):
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    @property
    def num_asked(self):
        return len(self.log.read_text().splitlines())


@pytest.fixture
def teacher(run, tmp_path, monkeypatch):
    """Run with a teacher behind the server in one of its modes; returns the server."""
    pytest.importorskip("openai", reason="the client of teachers is not installed")
    monkeypatch.setattr("aliquot.annotation.teachers.request_queue.BACKOFF_SECONDS", 0.01)
    priced = ("annotator.price_per_million.input=1", "annotator.price_per_million.output=1e4")

    def asking(mode, *overrides):
        with Server(mode, tmp_path) as server:
            monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.port}/v1")
            monkeypatch.setenv("OPENAI_API_KEY", "any")
            overrides = own("teacher/prompts.jsonl", "annotator=teacher", "annotator.model=fake", *priced, *overrides)
            try:
                run("pool.limit=null", *overrides)
            finally:
                server.num_asked_in_all = server.num_asked
        return server

    return asking


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["parts", "think"])
def test_answers_in_parts_or_with_reasoning_are_read_charged_and_bought_once(teacher, mode, tmp_path, caplog):
    caplog.set_level("INFO", "aliquot")
    server = teacher(mode)
    assert server.num_asked_in_all == 12
    assert annotated(tmp_path) == {f"q{i}": "Lima" for i in range(12)}
    (ledger,) = tmp_path.glob("store/ledger/*.jsonl")
    replies = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [(reply["input_tokens"], reply["output_tokens"]) for reply in replies] == [(10, 40)] * 12
    (bill,) = tmp_path.glob("store/annotate/*/bill.json")
    assert json.loads(bill.read_text())["cost"] == pytest.approx(12 * (10 + 40 * 1e4) / 1e6)
    assert "12 of 12 responses had reasoning, which is not trained on" in caplog.text


@pytest.mark.slow
def test_reasoning_is_kept_where_that_is_asked_for_and_not_bought_again(teacher, tmp_path):
    teacher("think")
    shutil.rmtree(tmp_path / "store" / "annotate")
    server = teacher("think", "annotator.keep_reasoning=true")
    assert server.num_asked_in_all == 12
    assert all(response.startswith("<think>\nThe user wants") for response in annotated(tmp_path).values())


@pytest.mark.slow
def test_an_error_inside_an_answer_is_quoted(teacher, tmp_path):
    with pytest.raises(ValueError, match="Upstream error from provider: the model is overloaded") as stopped:
        teacher("error200", "annotator.attempts=2")
    assert "\n" not in str(stopped.value)
    assert annotated(tmp_path) is None
