"""What the terminal says after a run, and the table of all runs as csv."""

import csv
import io

from aliquot.experiment.console import show_results, show_runs
from aliquot.experiment.record import RunRecord
from aliquot.report.tables.formats import runs_csv
from aliquot.types import Metric

RUN = RunRecord(
    id="0123-40",
    strategy="facility_location",
    pool="demo",
    num_prompts=99_000,
    budget=45_000,
    seed=3,
    overrides=["strategy=facility_location", "strategy.kernel.gamma=0.1", "model.template='{prompt} ? {response}'"],
    base=[Metric("demo_mmlu", 0.25, 0.01, 1710)],
    finetuned=[Metric("demo_mmlu", 0.75, 0.01, 1710)],
    stages=[("score", "aa", 60.0), ("select", "bb", 30.0), ("annotate", "cc", 1.0)],
    finished="2026-01-01T00:00:00+0000",
)


def test_results_show_scores_with_errors_costs_places_and_the_next_command(tmp_path, capsys):
    (tmp_path / "selected.jsonl").touch()
    show_results(RUN, tmp_path, 1, "python run.py strategy=random")
    out = capsys.readouterr().out
    for words in ("25.0 ± 1.0", "75.0 ± 1.0", "+50.0", "1,710", "45,000 of 99,000", "91 in all", "selected.jsonl"):
        assert words in out, words
    assert out.splitlines()[-1] == "Next          python run.py strategy=random"


def test_the_table_names_changes_of_the_strategy(capsys):
    show_runs([RUN])
    assert "facility_location kernel.gamma=0.1" in " ".join(capsys.readouterr().out.split())


def test_csv_has_a_line_a_run_and_benchmark_that_reads_back():
    stopped_early = RunRecord(**{**vars(RUN), "base": [], "finetuned": [], "id": "x"})
    rows = list(csv.DictReader(io.StringIO(runs_csv([RUN, stopped_early]))))
    assert [row["id"] for row in rows] == ["0123-40", "x"]
    assert (float(rows[0]["base"]), float(rows[0]["finetuned"]), int(rows[0]["budget"])) == (0.25, 0.75, 45_000)
    assert rows[1]["finetuned"] == ""
