"""The progress indication, as a log sees it."""

import threading
import time
from contextlib import closing

import pytest

from aliquot.runtime import progress
from aliquot.runtime.progress import Progress, silenced, watched


@pytest.fixture
def hasty(monkeypatch):
    """Let less time pass between two lines."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.3)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_TICKS", 0.1)


@pytest.mark.slow
def test_a_loop_that_is_busy_with_its_first_unit_speaks_without_a_rate(capsys, hasty):
    with closing(Progress("score", 10, "prompt")):
        time.sleep(1.0)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert lines[0] == "score: 0:00  0/10 prompts"


@pytest.mark.parametrize("seconds", [5.0, 40.0])
def test_below_one_unit_a_second_the_rate_is_in_seconds_a_unit(capsys, monkeypatch, seconds):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("finetune", 4, "step") as bar:
        for _ in range(4):
            now[0] += seconds
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert all(f"{seconds:.1f} s/step" in line for line in lines)
    assert sum("4/4 steps" in line for line in lines) == 1


@pytest.mark.slow
def test_the_last_line_comes_once_however_often_a_loop_is_closed(capsys, hasty):
    with Progress("score", 4, "prompt") as bar:
        for _ in range(4):
            time.sleep(0.2)
            bar.update()
        bar.close()
    bar.close()
    time.sleep(0.4)
    assert capsys.readouterr().err.count("4/4 prompts") == 1


@pytest.mark.slow
def test_work_without_a_loop_says_that_it_goes_on_and_leaves_no_thread(capsys, hasty):
    before = threading.active_count()
    with watched("select"):
        time.sleep(0.9)
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("select: 0:0") and line.endswith("at work") for line in lines)
    assert threading.active_count() == before


@pytest.mark.slow
def test_work_is_silent_while_a_loop_in_it_speaks(capsys, hasty):
    with watched("select"), Progress("k-center", 20, "pick") as bar:
        for _ in range(20):
            time.sleep(0.05)
            bar.update()
    err = capsys.readouterr().err
    assert "k-center" in err
    assert "select" not in err


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("score", total=1000, unit="prompt", done=100) as bar:
        for _ in range(10):
            now[0] += 4.0
            bar.update(80, loss="1.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "score: 0:12  340/1,000 prompts, 20.0 prompts/s, loss 1.5, 0:33 left",
        "score: 0:24  580/1,000 prompts, 20.0 prompts/s, loss 1.5, 0:21 left",
        "score: 0:36  820/1,000 prompts, 20.0 prompts/s, loss 1.5, 0:09 left",
        "score: 0:40  1,000/1,000 prompts, 22.5 prompts/s, loss 1.5",
    ]


def test_an_error_leaves_the_count_where_it_was(capsys):
    try:
        with Progress("score", total=10, unit="prompt") as bar:
            bar.update(3)
            raise KeyError
    except KeyError:
        pass
    assert " 3/10 prompts" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("finetune", total=4, unit="step") as bar:
        bar.update(4, loss="0.5")
    text = capsys.readouterr().err
    assert "finetune: 100%" in text
    assert "4/4" in text


def test_loops_that_are_silenced_say_nothing(capsys):
    with silenced(), Progress("check", 3, "prompt") as progress:
        progress.update(3)
    assert capsys.readouterr().err == ""
    with Progress("work", 3, "prompt") as progress:
        progress.update(3)
    assert "work" in capsys.readouterr().err
