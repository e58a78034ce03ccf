"""Reports with held-out rows weighed in another way."""

import csv
import json

import numpy as np
import pytest

from aliquot.demo import HELD_OUT
from aliquot.evaluation.held_out.measures import weights
from aliquot.evaluation.weightings import TASKS
from aliquot.report.analysis.correctness import Evaluations
from aliquot.report.reading import read_studies
from aliquot.types import Metric

LABELS = ["a", "a", "a", "b"]


def save(folder, values, **more):
    folder.mkdir()
    (folder / "correct.json").write_text(json.dumps({"exact_match": values}))
    (folder / "metrics.json").write_text(json.dumps({"tasks": {"exact_match": LABELS}, "shares": {"b": 1.0}} | more))
    return [Metric("exact_match", float(np.mean(values)), 0.1, 4)]


@pytest.mark.parametrize(
    ("weighting", "means"),
    [("rows", (0.5, 0.25)), ("tasks", (2 / 3, 1 / 6)), ("pool", (1.0, 0.0)), ("target", (0.6 / 3 + 0.4, 0.6 / 3))],
)
def test_the_mean_of_what_is_read_is_the_weighted_mean(tmp_path, weighting, means):
    metrics = [save(tmp_path / "x", [1, 0, 0, 1]), save(tmp_path / "y", [1, 0, 0, 0])]
    evaluations = Evaluations(metrics, weighting, {"a": 0.3, "b": 0.2, "not in the rows": 0.5})
    found = [evaluations.read(tmp_path / name, m)["exact_match"] for name, m in zip("xy", metrics, strict=True)]
    assert [values.mean() for values in found] == pytest.approx(means)


def test_a_difference_row_by_row_is_the_weighted_one(tmp_path):
    metrics = [save(tmp_path / "x", [1, 0, 0, 1]), save(tmp_path / "y", [1, 0, 1, 0])]
    evaluations = Evaluations(metrics, TASKS)
    one, other = (evaluations.read(tmp_path / name, m)["exact_match"] for name, m in zip("xy", metrics, strict=True))
    np.testing.assert_allclose(one - other, weights(LABELS, 4, TASKS, None) * [0, 0, -1, 1], atol=1e-6)


def test_what_has_no_labels_counts_alike_and_is_noted(tmp_path):
    metrics = save(tmp_path / "x", [1, 0, 0, 1], tasks={"exact_match": None})
    evaluations = Evaluations([metrics], TASKS)
    assert evaluations.read(tmp_path / "x", metrics)["exact_match"].tolist() == [1, 0, 0, 1]
    assert evaluations.unweighed == {"exact_match"}


@pytest.mark.slow
def test_runs_are_weighed_by_the_target_that_some_of_them_chose_toward(run, tmp_path, caplog):
    heldout = ("evaluate=heldout", "evaluate.limit=40", "evaluate.max_new_tokens=2", "evaluate.measures=[exact_match]")
    rows = [json.loads(line) for line in HELD_OUT.read_text().splitlines()]
    target = tmp_path / "target.jsonl"
    labels = [rows[0]["task"], rows[0]["task"], rows[39]["task"]]
    lines = [{"id": str(i), "prompt": f"Say what {i} is.", "task": label} for i, label in enumerate(labels)]
    target.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("strategy=random", *heldout)
    run("strategy=rds", f"target.path={target}", *heldout)
    (study,) = read_studies(tmp_path / "store", weighting="target")
    assert {cell.arm.strategy for cell in study.cells} == {"random", "rds"}
    weight = weights([row["task"] for row in rows[:40]], 40, "target", {labels[0]: 2 / 3, labels[2]: 1 / 3})
    for record in study.records:
        values = json.loads(
            next((tmp_path / "store/evaluate").glob(f"{record.id.split('-')[0]}/correct.json")).read_text()
        )
        (cell,) = (cell for cell in study.cells if record.id in cell.runs)
        flat = [value for answers in values.values() for value in answers]
        assert cell.correct["exact_match"].mean() == pytest.approx(float(np.mean(weight * flat)), abs=1e-6)
    run("strategy=rds", f"target.path={target}", "target.limit=2", *heldout)
    read_studies(tmp_path / "store", weighting="target")
    assert "2 targets" in caplog.text


@pytest.mark.slow
def test_the_report_is_made_by_tasks_and_says_so(run, tmp_path, capsys):
    from aliquot.report.command import report

    for seed in range(2):
        run("strategy=random", "evaluate=heldout", "evaluate.limit=40", "evaluate.max_new_tokens=2", f"seed={seed}")
    capsys.readouterr()
    report(tmp_path / "store", [], tmp_path / "report", "tasks")
    assert "tasks alike" in capsys.readouterr().out
    records = [json.loads(file.read_text()) for file in (tmp_path / "store/runs").glob("*/results.json")]
    by_tasks = [m["weighted"]["tasks"][0] for r in records for m in r["finetuned"] if m["name"] == "likelihood"]
    with open(tmp_path / "report/results.csv", newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["benchmark"] == "likelihood")
    assert float(row["score"]) == pytest.approx(np.mean(by_tasks), rel=1e-4)
