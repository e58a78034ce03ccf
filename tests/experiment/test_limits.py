"""Budgets in money and tokens, from the command line to what was paid and trained on."""

from __future__ import annotations

import json

import pytest

from aliquot.experiment.build import Parts
from aliquot.experiment.record import RunRecord
from fake_endpoint import MODEL

pytestmark = pytest.mark.filterwarnings("default")
TEACHER = ("annotator=teacher", f"annotator.model={MODEL}", "annotator.max_tokens=40")
PRICED = (*TEACHER, "annotator.price_per_million.input=100", "annotator.price_per_million.output=1000")


def parts_of(compose, tmp_path, *overrides):
    small = ["pool.limit=300", "tracker=none", f"store={tmp_path / 'store'}", "evaluate.limit=1"]
    return Parts.of(compose(*small, *overrides))


def record_of(tmp_path, ending):
    (path,) = tmp_path.glob(f"store/runs/*-{ending}/results.json")
    return RunRecord.read(path.parent)


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_money_buys_and_trains_on_what_it_pays_for(serve, run, tmp_path):
    pytest.importorskip("openai")
    server = serve()
    run(*PRICED, "strategy=random", "budget=1usd", "until=finetune")
    record = record_of(tmp_path, "1usd")
    assert record.limit == "1usd"
    assert 0.8 < record.annotation_cost <= 1
    assert record.budget == record.num_annotated == server.answered.total()
    chosen = rows_of(tmp_path / "store" / "runs" / record.id / "selected.jsonl")
    (file,) = tmp_path.glob("store/annotate/*/annotated.jsonl")
    assert [row["id"] for row in chosen] == [row["id"] for row in rows_of(file)]
    assert record.tokens_trained
