"""A stage at work: what it says while it takes long, and when a library fails in it."""

import time
from pathlib import Path

import pytest

from aliquot.runtime import progress
from aliquot.selection.strategies.random import Random


@pytest.mark.slow
def test_a_strategy_that_is_slow_and_silent_is_seen_to_work(run, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.2)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_TICKS", 0.05)
    select = Random.select

    def slow(*arguments):
        time.sleep(1.0)
        return select(*arguments)

    monkeypatch.setattr(Random, "select", slow)
    run("strategy=random", "until=select")
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("select: 0:")]


@pytest.mark.slow
def test_a_model_that_is_slow_shows_progress_before_its_first_batch_is_read(run, monkeypatch, capsys):
    from aliquot.scoring.module import ScoringModule

    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.2)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_TICKS", 0.05)
    step = ScoringModule.predict_step

    def slow(*arguments, **keywords):
        time.sleep(1.0)
        return step(*arguments, **keywords)

    monkeypatch.setattr(ScoringModule, "predict_step", slow)
    run("until=score")
    assert "score: 0:00  0/300 prompts" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error:\n  device-side assert"), KeyError("bos"), ValueError("from a library")]
)
def test_what_a_library_raises_in_a_stage_is_one_line_with_its_words_and_the_place_of_the_traceback(
    run, monkeypatch, tmp_path, error
):
    def fail(*_arguments):
        exec("raise error", {"error": error})  # the last frame is no file of ours

    monkeypatch.delenv("ALIQUOT_DEBUG", raising=False)
    monkeypatch.setattr(Random, "select", fail)
    with pytest.raises(ValueError, match="select: rank 40 prompts by Random: ") as found:
        run("strategy=random", "until=select")
    message = str(found.value)
    assert "\n" not in message
    assert f"{type(error).__name__}: {' '.join(str(error).split())}; the traceback is in " in message
    file = Path(message.rpartition("the traceback is in ")[2])
    assert file.is_relative_to(tmp_path)
    assert "Traceback" in file.read_text()


def test_what_was_not_foreseen_outside_a_stage_is_one_line_too(monkeypatch, capsys):
    from aliquot.config.help import errors_explained

    monkeypatch.delenv("ALIQUOT_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended, errors_explained():
        raise ZeroDivisionError("by a library")
    line = str(ended.value)
    assert "ZeroDivisionError: by a library; the traceback is in " in line
    file = Path(line.rpartition("the traceback is in ")[2])
    assert "ZeroDivisionError" in file.read_text()
    file.unlink()
