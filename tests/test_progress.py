"""The progress indication, as a log sees it."""

from aliquot import progress
from aliquot.progress import Progress, silenced


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
