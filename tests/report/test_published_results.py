"""What docs/results.md says is what the published tables say, and every file that it links is there."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from aliquot.config.schema import ROOT

MINUS = "\N{MINUS SIGN}"
DOCS = ROOT / "docs"
TEXT = (DOCS / "results.md").read_text(encoding="utf-8")


def numbers(cell):
    """Value, low and high, of which > and < say that they lie beyond."""
    found = re.findall(rf"([<>] )?([+{MINUS}]?[\d.]+)", cell.replace("*", ""))
    return [(beyond.strip(), float(number.replace(MINUS, "-"))) for beyond, number in found]


def table(first):
    """Rows of the table whose first column of numbers has this name: strategy -> column -> cell."""
    lines = TEXT[TEXT.index(f"| strategy | {first}") :].split("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0].strip("`"): dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def published(folder, name):
    with open(DOCS / "results" / folder / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("folder", "first"), [("demo", "demo_mmlu: points"), ("flan_style", "validation_likelihood: points")]
)
def test_the_tables_say_what_the_csv_files_say(folder, first):
    shown = table(first)
    areas = {(row["arm"], row["benchmark"]): row for row in published(folder, "areas")}
    results = {(row["arm"], row["benchmark"], row["budget"]): row for row in published(folder, "results")}
    assert set(shown) == {arm for arm, _ in areas} - {"random"} and len(shown) == 15
    for arm, cells in shown.items():
        for column, cell in cells.items():
            benchmark, _, what = column.partition(": ")
            if what == "points":
                row = areas[arm, benchmark]
                exact = [100 * float(row[f"difference{end}"]) for end in ("", "_low", "_high")]
                assert [number for _, number in numbers(cell)] == pytest.approx(exact, abs=0.0501), (arm, column)
                assert cell.startswith("**") == (float(row["p_adjusted"]) < 0.05), (arm, column)
            else:
                row = results[arm, benchmark, what.removeprefix("saved at ").replace(",", "")]
                for (beyond, number), end in zip(numbers(cell), ("ratio", "low", "high"), strict=True):
                    assert bool(beyond) == (row[f"saved_{end}"] == ""), (arm, column)
                    if not beyond:
                        assert number == pytest.approx(float(row[f"saved_{end}"]), abs=0.0501), (arm, column)


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "counted"), [("demo", (3, 10)), ("flan_style", (0, 0))])
def test_published_p_values_are_those_of_welchs_test_corrected_by_holm(folder, counted):
    """What other questions bring to a variance is the published standard error less what the runs say of seeds."""
    scores = {
        (row["id"], row["benchmark"]): float(row["finetuned"]) for row in published(folder, "runs") if row["benchmark"]
    }
    rows, better, worse = published(folder, "results"), 0, 0

    def runs(row):
        return np.array([scores[run, row["benchmark"]] for run in row["runs"].split()])

    random = {(row["benchmark"], row["budget"]): runs(row) for row in rows if row["arm"] == "random"}
    for benchmark in {row["benchmark"] for row in rows}:
        compared = [row for row in rows if row["benchmark"] == benchmark and row["difference"]]
        p_values = []
        for row in compared:
            ours, theirs = runs(row), random[benchmark, row["budget"]]
            assert float(row["difference"]) == pytest.approx(ours.mean() - theirs.mean(), abs=1e-6)
            dof = stats.ttest_ind(ours, theirs, equal_var=False).df
            p_values.append(2 * stats.t.sf(abs(float(row["difference"])) / float(row["difference_stderr"]), dof))
        assert [float(row["p"]) for row in compared] == pytest.approx(p_values, rel=1e-3)
        adjusted = multipletests(p_values, method="holm")[1]
        assert [float(row["p_adjusted"]) for row in compared] == pytest.approx(adjusted, rel=1e-3)
        gains = np.array([float(row["difference"]) for row in compared])
        better += ((adjusted < 0.05) & (gains > 0)).sum()
        worse += ((adjusted < 0.05) & (gains < 0)).sum()
    assert (better, worse) == counted


def test_nothing_published_has_an_interval_of_no_width():
    for folder in ("demo", "flan_style"):
        for name in ("results", "areas"):
            for row in published(folder, name):
                ends = [(row[end], row[end.replace("_low", "_high")]) for end in row if end.endswith("_low")]
                assert all(low != high for low, high in ends if low), (folder, name, row["arm"])


def test_every_linked_file_is_there_and_none_besides():
    pages = [page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")]
    linked = {name for page in pages for name in re.findall(r"\]\((results/[^)]+)\)", page)}
    assert linked == {path.relative_to(DOCS).as_posix() for path in (DOCS / "results").rglob("*") if path.is_file()}
