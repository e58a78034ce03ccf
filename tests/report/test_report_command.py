"""`python -m aliquot report`: what it prints, what it writes, and that neither depends on luck."""

import csv
import json
import os
import subprocess
import sys
import threading

import pytest
from synthetic_store import RECIPE, SyntheticStore, facility_location, random

from aliquot.__main__ import main
from aliquot.report import command
from aliquot.report.analysis.compare import find
from aliquot.report.reading import read_studies

FILES = {
    "index.html",
    "results.csv",
    "results.parquet",
    "results.md",
    "results.tex",
    "areas.csv",
    "areas.parquet",
    "runs.csv",
    "figures",
}


def fill(store):
    """Write two arms x two budgets x two seeds."""
    runs = []
    for budget in (100, 1000):
        for seed in (0, 1):
            runs.append(store.add("random", random(seed), budget, seed, accuracy=0.3 + budget / 10_000))
            runs.append(store.add("facility_location", facility_location(), budget, seed, accuracy=0.5))
    return runs


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of two sweeps, one of which is still running."""
    store = SyntheticStore(tmp_path_factory.mktemp("store"))
    runs = fill(store)
    store.plan("aaaa1111", runs[:4])
    store.plan("bbbb2222", [*runs[4:], "0123-100", "4567-100"])
    return store


@pytest.fixture
def ask(monkeypatch, capsys):
    """Call the command line in this process; returns what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["aliquot", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return call


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    """A report of the whole store."""
    folder = tmp_path_factory.mktemp("report")
    command.report(store.root, (), folder)
    return folder


@pytest.fixture
def no_figures(monkeypatch):
    """Draw nothing: it takes most of the time."""
    monkeypatch.setattr(command, "draw_into", lambda *_: [])


@pytest.mark.slow
def test_the_folder_has_every_format_with_every_finding(store, folder):
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".svg", ".png"}
    page = (folder / "index.html").read_text()
    for words in ("4 of 6 runs finished", "python run.py -m sweep=bbbb2222", "facility_location", "<svg"):
        assert words in page, words
    (study,) = read_studies(store.root)
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [f.score.value for f in find(study).findings]
    with open(folder / "runs.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 16  # two benchmarks of eight runs


@pytest.mark.slow
def test_a_second_report_is_the_same_and_an_interrupted_one_changes_nothing(store, folder, ask, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    first = contents(folder)
    out = ask("report", "--store", store.root, "--to", folder)
    assert out.splitlines()[-1].split() == ["Report", str(folder / "index.html")]
    for words in ("demo_mmlu", "demo_bbh", "facility_location", "1,000", "Sweep bbbb2222: 4 of 6 runs finished."):
        assert words in out, words
    second = contents(folder)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= {"index.html"}  # has the time in it
    monkeypatch.setattr(command, "draw_into", killed)
    refused(ask, "report", "--store", store.root, "--to", folder)
    assert contents(folder) == second


def test_one_sweep_is_reported_alone_into_the_store_by_default(store, ask, no_figures):
    out = ask("report", "bbb", "--store", store.root)
    assert "aaaa1111" not in out
    runs = json.loads((store.root / "sweeps" / "bbbb2222" / "sweep.json").read_text())["runs"]
    with open(store.root / "report" / "runs.csv", newline="", encoding="utf-8") as file:
        assert {row["id"] for row in csv.DictReader(file)} == {run["id"] for run in runs[:4]}


@pytest.mark.slow
def test_studies_share_the_tables_and_have_figures_of_their_own(tmp_path, ask):
    store = SyntheticStore(tmp_path / "store")
    fill(store)
    store.recipe = RECIPE | {"rank": 4}
    store.add("random", random(), 100)
    out = ask("report", "--store", store.root)
    folder = store.root / "report"
    for text in (out, (folder / "results.md").read_text(), (folder / "results.csv").read_text()):
        assert "finetune.rank=16" in text.replace("\\", "")
        assert "finetune.rank=4" in text.replace("\\", "")
    assert {path.name for path in (folder / "figures").iterdir()} == {"1", "2"}


def test_a_list_of_runs_has_those_that_were_not_evaluated_and_writes_nothing(tmp_path, ask):
    store = SyntheticStore(tmp_path)
    names = [store.add("random", random(seed), 100, seed) for seed in (0, 1)]
    stop(store, names[1])
    before = contents(tmp_path)
    out = ask("report", "--runs", "--store", tmp_path)
    assert all(name in out for name in names)
    assert contents(tmp_path) == before


def stop(store, run):
    """Make a run one that stopped before evaluation."""
    file = store.root / "runs" / run / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base": [], "finetuned": []}))


def refused(ask, *arguments):
    with pytest.raises(SystemExit) as stopped:
        ask(*arguments)
    return str(stopped.value)


def test_nothing_to_report_is_one_message_and_leaves_nothing(tmp_path, ask):
    store = SyntheticStore(tmp_path)
    assert f"no finished runs in {tmp_path}/; run one with `python run.py`" in refused(
        ask, "report", "--store", tmp_path
    )
    store.plan("abcd0000", ["0123-100"])
    message = refused(ask, "report", "abcd", "--store", tmp_path)
    assert "Sweep abcd0000: 0 of 1 runs finished. There is nothing to report yet" in message
    assert "sweeps named 'x...' are in" in refused(ask, "report", "x", "--store", tmp_path)
    stop(store, store.add("random", random(), 100))
    message = refused(ask, "report", "--store", tmp_path)
    assert "of 1 finished runs" in message
    assert "`python -m aliquot report --runs` lists them" in message
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_written_is_one_message(store, ask, tmp_path):
    (tmp_path / "file").write_text("mine")
    message = refused(ask, "report", "--store", store.root, "--to", tmp_path / "file")
    file = tmp_path / "file"
    assert message == (
        f"error: the report cannot be written to {file}: {file} is not a directory that you may write to; set --to"
    )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_runs_that_appear_while_it_reads_do_no_harm(tmp_path):
    store = SyntheticStore(tmp_path)
    fill(store)
    done = threading.Event()

    def go_on():
        for seed in range(2, 200):
            store.add("random", random(seed), 100, seed)
            if done.is_set():
                return

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        counts = [sum(len(cell.runs) for study in read_studies(tmp_path) for cell in study.cells) for _ in range(8)]
    finally:
        done.set()
        writer.join()
    assert counts == sorted(counts)
    assert counts[0] >= 8


def test_help_teaches_with_examples(ask, capsys):
    with pytest.raises(SystemExit):
        ask("report", "--help")
    out = capsys.readouterr().out
    for words in ("python -m aliquot report --runs", "--to", "SWEEP", "index.html", "Parquet", "annotations saved"):
        assert words in out


@pytest.mark.slow
def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['aliquot', '--help']\n"
        "import contextlib, aliquot.__main__ as m\n"
        "with contextlib.suppress(SystemExit): m.main()\n"
        "heavy = {'numpy', 'matplotlib', 'scipy', 'torch', 'jinja2', 'pyarrow', 'wandb', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow
def test_a_real_run_is_reported(run, ask, tmp_path):
    run("strategy=k_center")
    out = ask("report", "--store", tmp_path / "store")
    assert "k_center" in out
    (study,) = read_studies(tmp_path / "store")
    (cell,) = study.cells
    assert (study.name, cell.arm.name, cell.budget) == ("demo, aliquot.demo/model", "k_center", 40)
    assert [correct.mean() for correct in cell.correct.values()] == pytest.approx(
        [metric.value for metric in study.records[0].finetuned]
    )
