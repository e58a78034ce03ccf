"""Whole experiments with a teacher: from the pool to the adapter, and the key nowhere."""

import json

import pytest

from fake_endpoint import KEY, MODEL, FakeEndpoint, answer

pytest.importorskip("openai", reason="the client of teachers is not installed")
pytestmark = pytest.mark.filterwarnings("default")
TEACHER = ("annotator=teacher", f"annotator.model={MODEL}", "strategy=random")


@pytest.fixture
def server(monkeypatch):
    with FakeEndpoint() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def found(text, folder, capsys):
    """Tell where a text stands: in files, or in what was printed."""
    captured = capsys.readouterr()
    files = [str(file) for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]
    return files + [name for name in ("out", "err") if text in getattr(captured, name)]


@pytest.mark.slow
def test_the_whole_path_trains_on_what_the_teacher_said_and_keeps_the_key_to_itself(server, run, tmp_path, capsys):
    assert 0 <= run(*TEACHER) <= 1
    (file,) = (tmp_path / "store" / "annotate").glob("*/annotated.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 40
    assert all(row["response"] == f"the answer to {row['prompt']}" for row in rows)
    assert server.answered == dict.fromkeys((row["prompt"] for row in rows), 1)
    port = server.environment["OPENAI_BASE_URL"].split("/")[2]
    assert found(KEY, tmp_path, capsys) == []
    assert found(port, tmp_path, capsys) == []


@pytest.mark.slow
def test_budgets_and_strategies_share_what_was_bought(server, run):
    run(*TEACHER, "until=annotate", "budget=20")
    run(*TEACHER, "until=annotate", "budget=50")
    assert server.answered.total() == len(server.answered) == 50
    run(*TEACHER, "until=annotate", "budget=50", "strategy=longest")
    assert server.answered.total() == len(server.answered) < 100


@pytest.mark.slow
def test_prices_limits_and_speed_are_no_part_of_the_key(server, run, tmp_path):
    run(*TEACHER, "until=annotate")
    changes = ["concurrency=2", "attempts=3", "timeout=9", "price_per_million.output=3", "max_cost=99"]
    run(*TEACHER, "until=annotate", *(f"annotator.{change}" for change in changes))
    assert len(list((tmp_path / "store" / "annotate").glob("*/stage.json"))) == 1
    run(*TEACHER, "until=annotate", "annotator.system=Be brief.")
    assert server.answered.total() == 80


def test_a_key_that_is_refused_is_told_before_anything_is_scored_and_stands_nowhere(
    server, run, tmp_path, capsys, monkeypatch
):
    wrong = "sk-wrong-secret-9876543210"
    monkeypatch.setenv("OPENAI_API_KEY", wrong)
    with pytest.raises(ValueError, match="refuses the key"):
        run(*TEACHER, "strategy=k_center")
    assert not list(tmp_path.glob("store/score/*/stage.json"))
    assert not server.requests
    assert found(wrong, tmp_path, capsys) == []


@pytest.mark.slow
def test_a_key_that_is_refused_later_stops_at_once_and_stands_nowhere(server, run, tmp_path, capsys, monkeypatch):
    wrong = "sk-wrong-secret-9876543210"

    def revoked(prompt, attempt):
        message = f"Incorrect API key provided: {wrong}."
        return 401, {"error": {"message": message, "code": "invalid_api_key"}}, {}

    server.behave = revoked
    monkeypatch.setenv("OPENAI_API_KEY", wrong)
    monkeypatch.setattr("aliquot.annotation.teachers.endpoint.EndpointTeacher.check", lambda *_: None)
    monkeypatch.setattr("fake_endpoint.KEY", wrong)
    with pytest.raises(ValueError, match=r"accepts no requests: 401 Incorrect API key provided: \*\*\*\. What"):
        run(*TEACHER)
    assert len(server.requests) <= 8
    assert list(tmp_path.glob("store/annotate/*/error.txt"))
    assert found(wrong, tmp_path, capsys) == []


@pytest.mark.slow
def test_what_was_bought_before_a_failure_is_not_bought_again(server, run, monkeypatch):
    monkeypatch.setattr("aliquot.annotation.teachers.request_queue.BACKOFF_SECONDS", 0.01)
    failing = {}
    server.behave = lambda p, _: (500, {}, {}) if failing.setdefault(p, len(failing) == 7) else answer(p)
    with pytest.raises(ValueError, match="1 of 40 prompts got no response"):
        run(*TEACHER, "until=annotate", "annotator.attempts=2")
    server.behave = lambda prompt, _: answer(prompt)
    run(*TEACHER, "until=annotate")
    assert server.answered == dict.fromkeys(failing, 1)
