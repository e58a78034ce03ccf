"""Whole experiments on a corner of the demo world: what is computed, what is reused, what is left behind."""

import json
import math
import shutil

import pytest

from aliquot.experiment.record import RunRecord
from aliquot.report.reading import read_records
from aliquot.store.content import locate

pytestmark = pytest.mark.filterwarnings("default")


def done(tmp_path):
    """Return stage -> number of finished directories."""
    stages = ("score", "select", "annotate", "finetune", "evaluate")
    return {stage: len(list((tmp_path / "store").glob(f"{stage}/*/stage.json"))) for stage in stages}


def jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def only(paths):
    (path,) = paths
    return path


@pytest.mark.slow
def test_the_whole_path_runs_once_and_is_then_only_read(run, tmp_path, capsys):
    everything = ("strategy=facility_location", "evaluate.tasks=[demo_mmlu,demo_bbh]", "evaluate.limit=1")
    score = run(*everything)
    first = capsys.readouterr().out
    assert done(tmp_path) == {"score": 1, "select": 1, "annotate": 1, "finetune": 1, "evaluate": 2}
    assert 0 <= score <= 1
    for word in ("demo_mmlu", "demo_bbh", "±", "40 of 300", "Seconds", "Next"):
        assert word in first
    assert run(*everything) == score
    assert "nothing was computed" in capsys.readouterr().out


@pytest.mark.slow
def test_reusing_what_other_libraries_made_is_told_in_one_line_a_kind(run, tmp_path, capsys):
    run("until=annotate", "strategy=random")
    run("until=annotate", "strategy=random", "seed=1")
    for kind in ("select", "annotate"):
        for file in (tmp_path / "store").glob(f"{kind}/*/stage.json"):
            record = json.loads(file.read_text())
            file.write_text(json.dumps(record | {"libraries": record["libraries"] | {"torch": "0.4.1"}}))
    capsys.readouterr()
    run("until=annotate", "strategy=random")
    told = [line for line in capsys.readouterr().out.splitlines() if "torch 0.4.1 (here" in line]
    assert [line.split()[1] for line in told] == ["select", "annotate"]


@pytest.mark.slow
def test_another_strategy_gamma_or_budget_reuses_what_it_can(run, tmp_path):
    run("until=annotate")
    run("until=annotate", "strategy.kernel.gamma=1")
    assert done(tmp_path) | {"finetune": 0, "evaluate": 0} == done(tmp_path)
    assert done(tmp_path)["score"] == 1
    assert done(tmp_path)["select"] == 2
    run("until=annotate", "budget=10")  # a ranking to 40 holds the one to 10
    assert done(tmp_path)["select"] == 2
    run("until=annotate", "strategy=random")
    assert done(tmp_path) == {"score": 1, "select": 3, "annotate": 4, "finetune": 0, "evaluate": 0}


@pytest.mark.slow
def test_a_deeper_budget_ranks_again_in_place_and_agrees_with_the_shallower_one(run, tmp_path):
    run("until=select", "budget=10")
    run("until=select", "budget=60")
    assert done(tmp_path)["select"] == 1
    shallow, deep = sorted((tmp_path / "store" / "runs").glob("*/selected.jsonl"), key=lambda p: len(p.read_text()))
    assert deep.read_text().startswith(shallow.read_text())


@pytest.mark.slow
def test_equivalent_commands_are_one_experiment(run, tmp_path):
    run("until=select", "strategy.kernel.gamma=1", "budget=30")
    run("until=select", "strategy.kernel.gamma=1.0", "budget=10%", "trainer.devices=1", "scorer.tokens_per_batch=900")
    assert len(list((tmp_path / "store" / "runs").iterdir())) == 1


@pytest.mark.slow
def test_parts_of_a_ranking_are_stages_of_their_own_behind_one_scoring_pass(run, tmp_path, capsys):
    run("until=select", "strategy/mode=distributed", "strategy.mode.parts=3")
    assert capsys.readouterr().out.count("score: ") <= 2  # once in the plan, once when it is done
    assert done(tmp_path)["score"] == 1
    assert len(list((tmp_path / "store").glob("select_part/*/stage.json"))) == 3


@pytest.mark.slow
def test_until_select_writes_the_prompts_to_annotate_in_order(run, tmp_path):
    assert math.isnan(run("until=select", "strategy=k_center"))
    rows = jsonl(only((tmp_path / "store").glob("runs/*/selected.jsonl")))
    assert [row["rank"] for row in rows] == list(range(40))
    assert set(rows[0]) == {"rank", "id", "task", "gain", "prompt"}
    assert len({row["id"] for row in rows}) == 40
    assert done(tmp_path) == {"score": 1, "select": 1, "annotate": 0, "finetune": 0, "evaluate": 0}


@pytest.mark.slow
def test_check_validates_and_plans_and_does_nothing_but_read_the_pool(run, tmp_path, capsys):
    run("check=true")
    out = capsys.readouterr().out
    assert "to do" in out
    assert "Nothing was done" in out
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"pool", "trial"}


@pytest.mark.slow
def test_a_strategy_without_signals_needs_no_scoring_pass(run, tmp_path):
    run("until=select", "strategy=random")
    run("until=select", "strategy=longest")
    assert done(tmp_path)["score"] == 0


@pytest.mark.slow
def test_seeds_change_random_selection_but_not_rankings_or_scores(run, tmp_path):
    for seed in (0, 1):
        run("until=select", "strategy=random", f"seed={seed}")
        run("until=select", "strategy=facility_location", f"seed={seed}")
    assert done(tmp_path)["score"] == 1
    assert done(tmp_path)["select"] == 3


@pytest.mark.slow
def test_results_are_kept_as_files_and_listed_by_the_report(run, tmp_path, capsys):
    run("strategy=random", "evaluate.tasks=[demo_mmlu,demo_bbh]", "evaluate.limit=1")
    directory = only((tmp_path / "store" / "runs").iterdir())
    assert {path.name for path in directory.iterdir()} == {
        "config.yaml", "metrics.jsonl", "quality.html", "results.json", "selected.jsonl",
    }  # fmt: skip
    record = RunRecord.read(directory)
    assert read_records(tmp_path / "store") == [record]
    assert {metric.name for metric in record.base} == {"demo_mmlu", "demo_bbh"}
    assert jsonl(directory / "metrics.jsonl")[-1]["finetuned/demo_mmlu"] == record.finetuned[0].value
    losses = jsonl(only((tmp_path / "store").glob("finetune/*/metrics.jsonl")))
    assert losses[0]["loss"] > 0


@pytest.mark.slow
def test_the_same_command_gives_the_same_picks_in_another_store(run, tmp_path):
    for store in ("a", "b"):
        run("until=select", f"store={tmp_path / store}", "strategy=facility_location")
    a, b = (only((tmp_path / store).glob("runs/*/selected.jsonl")).read_bytes() for store in "ab")
    assert a == b


@pytest.mark.slow
def test_the_real_pool_and_the_real_model_run_the_whole_path(run, tmp_path, real_data):
    pool = ["pool=jsonl", f"pool.path={real_data / 'pools' / 'flan_style.jsonl.gz'}", "pool.limit=400"]
    model = ["model=hf", f"model.path={real_data / 'models' / 'tinystories-656k-llama'}"]
    run(*pool, *model, "budget=40", "scorer.max_new_tokens=4")
    assert done(tmp_path) == {"score": 1, "select": 1, "annotate": 1, "finetune": 1, "evaluate": 2}


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_one_speaks(run, capsys, monkeypatch, rank):
    for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, value)
    run("check=true", "trainer.devices=2", "trainer.accelerator=cpu")
    assert bool(capsys.readouterr().out) == (rank == "0")


@pytest.mark.slow
def test_the_plan_names_model_and_benchmark_and_a_chat_template_that_is_not_used(run, tmp_path, capsys):
    shutil.copytree(locate("pkg://aliquot.demo/model"), tmp_path / "inst")
    file = tmp_path / "inst" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": "{{ messages[0].content }}"}))
    model = ["check=true", "model=hf", f"model.path={tmp_path / 'inst'}", "model.max_tokens=256"]
    for overrides, hint in (
        (["check=true"], False),
        (model, True),
        ([*model, "strategy=random", "until=select"], False),
    ):
        run(*overrides)
        out = capsys.readouterr().out
        name = str(tmp_path / "inst") if "model=hf" in overrides else "pkg://aliquot.demo/model"
        assert f"model {name}, benchmark demo_mmlu_bean, demo_mmlu_carp" in out
        assert ("set model.template=chat" in out) == hint
