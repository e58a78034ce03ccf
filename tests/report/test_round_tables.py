"""The tables of rounds: means over seeds, from the records of runs."""

from __future__ import annotations

import dataclasses

from synthetic import make_study

from aliquot.experiment.prospect import Prospect
from aliquot.experiment.record import RoundRecord, RunRecord
from aliquot.experiment.stability import Stability
from aliquot.report.page.rounds import round_tables
from aliquot.types import Metric


def record(run: str, value: float, rounds: int = 2) -> RunRecord:
    of = [
        RoundRecord(10 * (r + 1), 10 * (r + 1), 1.5 * (r + 1), [Metric("demo_mmlu", value + 0.1 * r, 0.01, 100)],
                    Prospect(10, value, value - 1, value + 1, 2.0, "pool") if r == 0 else None)
        for r in range(rounds)
    ]  # fmt: skip
    return RunRecord(
        id=run, strategy="mean_entropy", pool="demo", num_prompts=300, budget=1000, seed=0, overrides=(),
        base=[Metric("demo_mmlu", 0.1, 0.01, 100)],
        finetuned=of[-1].finetuned if of else (), stages=(), finished="2026", rounds=of,
        stability={"mean_entropy": Stability(value, 0.5)} if rounds else {},
    )  # fmt: skip


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_each_round_is_a_row_with_means_over_seeds():
    study = make_study({"mean_entropy": [0.3], "random": [0.3]}, budgets=(1000,), num_seeds=2)
    records = [record("mean_entropy-1000-0", 0.2), record("mean_entropy-1000-1", 0.4), record("random-1000-0", 0.2, 0)]
    rounds, stable = round_tables(dataclasses.replace(study, records=records))
    first, second = texts(rounds)
    assert first[:3] == ["mean_entropy", "1", "10"]
    assert first[4] == "30.0"
    assert "0.3" in first
    assert second[1:3] == ["2", "20"]
    assert second[4] == "40.0"
    assert "-" in second  # nothing is left to buy
    assert texts(stable) == [["mean_entropy", "1,000", "mean_entropy", "0.30", "50%"]]


def test_a_study_without_rounds_has_no_such_rows():
    study = make_study({"random": [0.3]}, budgets=(1000,))
    assert not any(table.rows for table in round_tables(study))


def test_records_are_read_as_they_were_written(tmp_path):
    one = record("a", 0.25)
    one.write(tmp_path, "")
    read = RunRecord.read(tmp_path)
    assert [dataclasses.asdict(r) for r in read.rounds] == [dataclasses.asdict(r) for r in one.rounds]
    assert read.stability == one.stability
    assert one.summary()["round_1/projected_points"] == 0.25
