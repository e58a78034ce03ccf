"""Rounds in a sweep: planned as a whole, and continued while the next round is worth it."""

from __future__ import annotations

import os

import pytest

from aliquot.config.schema import ROOT
from aliquot.report.reading import read_records, read_studies
from command_line import Command

SMALL = ("pool.limit=300", "budget=40", "tracker=none", "evaluate.tasks=[demo_mmlu_bean,demo_bbh_largest]")


@pytest.fixture
def sweep(tmp_path):
    def start(*overrides):
        environment = {**os.environ, "ALIQUOT_STORE": str(tmp_path / "store")}
        process = Command(
            "run.py", "-m", *SMALL, "hydra.launcher.workers=2", *overrides, cwd=ROOT, environment=environment
        )
        process.wait()
        return process.returncode, process.output() + process.errors()

    return start


@pytest.mark.slow
def test_one_sweep_has_one_shot_and_rounds_and_reports_them_as_arms(sweep, tmp_path):
    status, said = sweep("strategy=allocation,random", "rounds=1,2")
    assert status == 0, said
    records = read_records(tmp_path / "store")
    assert sorted((r.strategy, len(r.rounds)) for r in records) == [
        ("allocation", 0), ("allocation", 2), ("random", 0), ("random", 2),
    ]  # fmt: skip
    # 20 and 40 prompts of one ranking of random, and of the two of allocation: 1 + 4 + 1 of the base model
    assert len(list((tmp_path / "store" / "finetune").glob("*/stage.json"))) == 5
    (study,) = read_studies(tmp_path / "store")
    assert {cell.arm.name: len(cell.runs) for cell in study.cells} == {
        "allocation": 1, "allocation rounds=2": 1, "random": 1,
    }  # fmt: skip
    status, said = sweep("strategy=allocation,random", "rounds=1,2")
    assert status == 0, said
    assert len(list((tmp_path / "store" / "finetune").glob("*/stage.json"))) == 5


@pytest.mark.slow
@pytest.mark.parametrize(("least", "rounds"), [(1000, 1), (-1000, 3)])
def test_a_sweep_continues_by_itself_until_its_rounds_end(sweep, tmp_path, least, rounds):
    status, said = sweep("strategy=allocation", "rounds=3", f"stop_below={least}", "seed=0,1")
    assert status == 0, said
    records = read_records(tmp_path / "store")
    assert [(len(r.rounds), r.budget) for r in records] == [(rounds, round(40 * rounds / 3))] * 2
