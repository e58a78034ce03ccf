"""A strategy that reads responses is marked as one at every place of a report that names it."""

import csv
import re

import pytest
from synthetic_store import SyntheticStore, facility_location, random, wrong_answers

from aliquot.report import command

#: The name without the mark; the commands that a page lists hold the choice as it is typed.
UNMARKED = re.compile(r"(?<!strategy=)wrong_answers(?! \(reads responses\))")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report of random, an upper reference and a strategy."""
    store = SyntheticStore(tmp_path_factory.mktemp("store"))
    for budget in (100, 1000):
        for seed in (0, 1):
            store.add("random", random(seed), budget, seed, accuracy=0.3)
            store.add("facility_location", facility_location(), budget, seed, accuracy=0.45)
            store.add("wrong_answers", wrong_answers(seed), budget, seed, accuracy=0.5)
    command.report(store.root, (), store.root / "report")
    return store.root / "report"


def said(file):
    """Return what a file says in one line, without what breaks lines and what is not shown."""
    text = file.read_text(encoding="utf-8").replace("\\", "")
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"</text>\s*<text[^>]*>|<wbr>", " ", text)
    return " ".join(text.split())


@pytest.mark.slow
def test_every_figure_table_and_page_marks_it_wherever_it_is_named(folder):
    files = [file for ending in ("svg", "html", "md", "tex") for file in folder.rglob(f"*.{ending}")]
    assert len([file for file in files if file.suffix == ".svg"]) == 9
    for file in files:
        text = said(file)
        assert "wrong_answers (reads responses)" in text, file
        assert not (found := UNMARKED.search(text)), text[found.start() - 80 : found.end() + 80]
        assert "facility_location (reads" not in text and "random (reads" not in text


def test_tables_for_programs_say_it_in_a_column(folder):
    for name in ("results", "areas"):
        with open(folder / f"{name}.csv", newline="") as file:
            arms = {row["strategy"]: row["arm"] for row in csv.DictReader(file)}
        assert arms["wrong_answers"] == "wrong_answers (reads responses)" and arms["random"] == "random"
    with open(folder / "runs.csv", newline="") as file:
        told = {(row["strategy"], row["uses_response"]) for row in csv.DictReader(file)}
    assert told == {("random", "False"), ("facility_location", "False"), ("wrong_answers", "True")}


def test_what_it_prints_marks_it_in_every_table(folder, capsys):
    command.list_runs(folder.parent)
    lines = capsys.readouterr().out
    assert lines.count("wrong_answers") == lines.count("wrong_answers (reads responses)") == 4
