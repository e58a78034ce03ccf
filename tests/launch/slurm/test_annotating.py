"""Annotators behind a real SLURM: no job waits for people, and teachers are asked in jobs of their own."""

from __future__ import annotations

import json

import pytest
from cluster import tasks

from aliquot.report.reading import read_records
from fake_endpoint import MODEL, FakeEndpoint


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_jobs_choose_then_people_answer_then_jobs_go_on(cluster, submit, tmp_path):
    store, folder = tmp_path / "store", tmp_path / "batch"
    wanted = ("strategy=min_margin", "budget=8,16", "annotator=file", f"annotator.folder={folder}")
    said = submit(*wanted)
    assert "2 of 2 experiments wait for people: these jobs choose their prompts" in said
    assert {kind: len(tasks(store, kind)) for kind in ("score", "select", "finetune")} == {
        "score": 1,
        "select": 1,
        "finetune": 0,
    }
    cluster.wait_for_jobs()
    said = submit(*wanted)
    assert "16 of 16 prompts wait for their responses" in said
    assert not cluster.run("squeue", "--noheader").stdout.strip(), "jobs wait for people"
    asked = rows(folder / "to_annotate.jsonl")
    (folder / "returned" / "some.jsonl").write_text(
        "".join(json.dumps({**row, "response": f"to {row['id']}"}) + "\n" for row in asked)
    )
    assert "2 of 2 runs are finished" in submit(*wanted, "hydra.launcher.wait=true")
    bought = [rows(file) for file in store.glob("annotate/*/annotated.jsonl")]
    assert sorted(len(batch) for batch in bought) == [8, 16]
    assert all(row["response"] == f"to {row['id']}" for batch in bought for row in batch)
    assert [run.num_annotated for run in read_records(store)] in ([8, 16], [16, 8])


def test_a_teacher_answers_in_jobs_without_a_gpu_that_pay_for_no_prompt_twice(cluster, submit, tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="the client of teachers is not installed")
    store = tmp_path / "store"
    with FakeEndpoint(seconds=0.02) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        wanted = ("strategy=random", "budget=20,40", "annotator=teacher", f"annotator.model={MODEL}", "until=finetune")
        submit(*wanted, "hydra.launcher.resources.annotate={cpus: 1, memory_gb: 1}")
        asking = tasks(store, "annotate")
        assert len(asking) == 2
        cluster.wait_for_jobs()
    assert {cluster.states()[job] for job in asking.values()} == {"COMPLETED"}
    assert server.answered.total() == len(server.answered) == 40
    assert sorted(run.num_annotated for run in read_records(store)) == [20, 40]
