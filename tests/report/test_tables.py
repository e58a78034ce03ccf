"""The tables hold all that was found, unrounded in files and readable for people."""

import csv
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from pyarrow import parquet
from rich.cells import cell_len
from synthetic import make_study

from aliquot.report.analysis.findings import Comparison, Curve, Finding, Findings, Saved
from aliquot.report.analysis.numbers import percent, percent_interval, with_interval
from aliquot.report.analysis.statistics import Estimate
from aliquot.report.analysis.study import Arm
from aliquot.report.tables.columns import AREAS, RESULTS, tables_of
from aliquot.report.tables.formats import Flat, latex, markdown, show

ARMS = (
    Arm("facility_location kernel.gamma=0.1", "facility_location", {"type": "FacilityLocation", "kernel.gamma": 0.1}),
    Arm("random", "random", {"type": "Random"}),
    Arm("uncertain_facility_location", "uncertain_facility_location", {"share": 0.5}),
)
BUDGETS = (1000, 30_000)
BENCHMARKS = ("demo_mmlu", "demo_bbh")


def found(seed=0):
    """Return a study, and findings of it made up from random numbers, with everything absent that may be."""
    rng = np.random.default_rng(seed)

    def estimate(least=0.1):
        value, width = rng.uniform(least, 0.9), rng.uniform(0.001, 0.05)
        return Estimate(value, width / 2, value - width, value + width)

    def compared(p):
        return Comparison(estimate(-0.5), p / 3, p, 3)

    saved = [
        Saved(1.83333333, 1.2, None, None, (0.1, 2.5)),
        Saved(None, None, None, "above", (0.1, 2.5)),
        Saved(None, None, 0.4, "below", (0.1, 2.5)),
        None,
    ]
    findings, curves = [], []
    for name in BENCHMARKS:
        for arm in ARMS:
            for budget in BUDGETS:
                number = len(findings)
                comparison = None if arm.strategy == "random" else compared(rng.uniform(0, 0.1))
                runs = (f"{number}-0", f"{number}-1")
                findings.append(
                    Finding(name, arm, budget, 2, 400, estimate(), comparison, saved[number % 4], number / 7, runs)
                )
            curves.append(Curve(name, arm, BUDGETS, estimate(), compared(0.6) if arm.strategy != "random" else None))
    base = {name: estimate() for name in BENCHMARKS}
    return make_study({"random": (0.5, 0.6)}, BUDGETS), Findings(base, findings, curves, ["One seed: be careful."])


def parsed(text, kind):
    return None if text == "" else kind(text)


def test_csv_and_parquet_read_back_equal_the_findings_to_the_last_digit(tmp_path):
    study, findings = found()
    flat = Flat.of(RESULTS, [(study, findings)], lambda f: f.findings)
    flat.write_csv(tmp_path / "results.csv")
    flat.write_parquet(tmp_path / "results.parquet")
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        from_csv = [{k: parsed(v, flat.kinds[k]) for k, v in row.items()} for row in csv.DictReader(file)]
    from_parquet = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert from_csv == from_parquet
    assert len(from_csv) == len(findings.findings)
    for row, finding in zip(from_csv, findings.findings, strict=True):
        assert rebuilt(row) == finding
        assert estimate_of(row, "base") == findings.base[finding.benchmark]
        assert row["study"] == study.name


def estimate_of(row, name):
    return Estimate(row[name], row[f"{name}_stderr"], row[f"{name}_low"], row[f"{name}_high"])


def comparison_of(row):
    if row["p"] is None:
        return None
    return Comparison(estimate_of(row, "difference"), row["p"], row["p_adjusted"], row["fewest_seeds"])


def rebuilt(row):
    """Make a finding of a row of a file."""
    names = ("ratio", "low", "high", "side")
    limits = (row["saved_range_low"], row["saved_range_high"])
    return Finding(
        row["benchmark"],
        Arm(row["arm"], row["strategy"], json.loads(row["parameters"])),
        row["budget"],
        row["num_replicates"],
        row["num_questions"],
        estimate_of(row, "score"),
        comparison_of(row),
        None if limits == (None, None) else Saved(*(row[f"saved_{name}"] for name in names), limits),
        row["selection_seconds"],
        tuple(row["runs"].split()),
    )


def test_areas_read_back_equal_the_curves(tmp_path):
    study, findings = found()
    Flat.of(AREAS, [(study, findings)], lambda f: f.curves).write_parquet(tmp_path / "areas.parquet")
    rows = parquet.read_table(tmp_path / "areas.parquet").to_pylist()
    for row, curve in zip(rows, findings.curves, strict=True):
        assert tuple(map(int, row["budgets"].split())) == curve.budgets
        assert estimate_of(row, "area") == curve.area
        assert comparison_of(row) == curve.comparison


def test_a_column_without_any_value_keeps_its_type(tmp_path):
    study, findings = found()
    bare = [replace(finding, comparison=None, saved=None) for finding in findings.findings]
    flat = Flat.of(RESULTS, [(study, replace(findings, findings=bare))], lambda f: f.findings)
    flat.write_parquet(tmp_path / "results.parquet")
    schema = parquet.read_schema(tmp_path / "results.parquet")
    assert [str(schema.field(name).type) for name in ("p", "fewest_seeds", "saved_side")] == [
        "double",
        "int64",
        "string",
    ]


def test_every_format_for_people_holds_every_row(capsys):
    study, findings = found()
    tables = tables_of(study, findings)
    assert sum(len(table.rows) for table in tables.tables) == len(findings.findings) + len(findings.curves)
    show(tables)
    texts = {
        "markdown": markdown([tables]).replace("\\", ""),
        "latex": latex([tables]),
        "terminal": capsys.readouterr().out,
    }
    for name, text in texts.items():
        plain = " ".join(text.replace("$-$", "\N{MINUS SIGN}").replace("\\_", "_").split())
        for finding in findings.findings:
            accuracy = with_interval(percent(finding.score), percent_interval(finding.score))
            assert accuracy in plain, (name, accuracy)
        assert "One seed: be careful." in plain, name
        assert "30,000" in plain


def test_numbers_for_people_are_points_with_an_interval_and_a_mark_where_reliable():
    study, findings = found()
    better = Comparison(Estimate(0.0123, 0.004, 0.0041, 0.0204), 0.001, 0.049, 3)
    rows = [
        (better, Saved(1.83, 1.2, None, None, (0.1, 2.5))),
        (replace(better, p_adjusted=0.051), Saved(None, 1.4, None, "above", (0.1, 2.5))),
        (None, Saved(None, None, 0.4, "below", (0.1, 2.5))),
    ]
    first = findings.findings[:3]
    findings = replace(
        findings,
        findings=[
            replace(f, budget=i, comparison=c, saved=s) for i, (f, (c, s)) in enumerate(zip(first, rows, strict=True))
        ],
    )
    shown = [row[3:6] for row in tables_of(study, findings).tables[0].rows]
    assert shown == [
        ["+1.2 (+0.4 to +2.0)*", "0.049", "1.8x (1.2 to >2.5)"],
        ["+1.2 (+0.4 to +2.0)", "0.051", ">2.5x (1.4 to >2.5)"],
        ["-", "-", "<0.1x (<0.1 to 0.4)"],
    ]


def test_rows_go_by_budget_then_accuracy_and_areas_by_the_distance_from_random():
    study, findings = found()
    tables = iter(tables_of(study, findings).tables)
    for benchmark in BENCHMARKS:
        results, areas = next(tables), next(tables)
        ordered = sorted(
            (f for f in findings.findings if f.benchmark == benchmark), key=lambda f: (f.budget, -f.score.value)
        )
        assert [(row[0], row[1]) for row in results.rows] == [(f"{f.budget:,}", f.arm.name) for f in ordered]
        gains = {
            c.arm.name: c.comparison.difference.value if c.comparison else 0.0
            for c in findings.curves
            if c.benchmark == benchmark
        }
        assert [row[0] for row in areas.rows] == sorted(gains, key=lambda name: -gains[name])


def test_a_base_that_is_not_known_is_a_dash():
    study, findings = found()
    unknown = Estimate(math.nan, math.nan, math.nan, math.nan)
    tables = tables_of(study, replace(findings, base=dict.fromkeys(BENCHMARKS, unknown)))
    assert tables.tables[0].title == "demo_mmlu: accuracy in %; - before finetuning"


def test_the_terminal_takes_110_columns_at_most_and_breaks_names_between_words(capsys):
    study, findings = found()
    better = Comparison(Estimate(-0.25, 0.01, -0.27, -0.23), 1e-9, 1e-8, 3)
    widest = [replace(f, comparison=f.comparison and better) for f in findings.findings]
    show(tables_of(study, replace(findings, findings=widest)))
    lines = capsys.readouterr().out.splitlines()
    words = {word for line in lines for word in line.split()}
    assert {"uncertain_facility_", "location", "facility_location", "kernel.gamma=0.1"} <= words
    of_tables = [line for line in lines if re.match(r" *(budget|strategy|[\d,]+ )|  ", line)]
    assert len(of_tables) > 12
    assert max(cell_len(line) for line in of_tables) <= 110
    assert any("\N{MINUS SIGN}25.0 (\N{MINUS SIGN}27.0 to \N{MINUS SIGN}23.0)*" in line for line in of_tables)


@pytest.mark.parametrize("name", ["a|b", "<script>", "x_y*z", "50% & more", r"back\slash", "#1 {~^$}"])
def test_names_are_escaped(name):
    study, findings = found()
    arm = Arm(name, name, {})
    tables = tables_of(study, replace(findings, findings=[replace(f, arm=arm) for f in findings.findings], curves=[]))
    rows = [line for line in markdown([tables]).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}
    assert "<script>" not in markdown([tables])
    body = latex([tables]).partition(r"\endhead")[2].partition(r"\bottomrule")[0]
    for line in body.splitlines():
        plain = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textbar)\{\}|\\[&%$#_{}]|\$[<>-]\$", "", line)
        assert re.fullmatch(r"|\\addlinespace|([^&\\%$#_{}^~|<>]* & ){7}[^&\\%$#_{}^~|<>]* \\\\", plain), line


def test_latex_is_balanced():
    text = latex([tables_of(*found())])
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 4
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    for begin in re.findall(r"\\begin\{longtable\}\{@\{\}([lr]+)@\{\}\}", text):
        assert len(begin) in (5, 8)
