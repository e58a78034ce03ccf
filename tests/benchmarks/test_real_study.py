"""The study on a real model: rows that are set aside, runs that continue, and results from the file of runs alone."""

import importlib
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aliquot.pools.near_duplicates import twins_of

ROOT = Path(__file__).parents[2]
NAMES = ("real_data", "real_runs", "real_table", "real_study")


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield [importlib.import_module(name) for name in NAMES]
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture
def data(study):
    return study[0]


@pytest.fixture
def runs(study):
    return study[1]


@pytest.fixture
def table(study):
    return study[2]


def words(texts):
    return [len(text.split()) for text in texts]


def row(task, number, prompt=None, family=None):
    text = prompt or " ".join(f"{task}{number}w{i}" for i in range(12))
    return {"id": f"{task}/{number}", "prompt": text, "response": "yes", "task": task, "family": family or task}


def rows_of(*tasks, count=40):
    return [row(task, number) for task in tasks for number in range(count)]


def all_rows(division):
    return [row for use in ("pool", "held_out", "target", "tuning") for row in getattr(division, use)]


def test_no_two_rows_share_an_id_or_a_prompt_and_none_is_lost(data):
    rows = rows_of("a", "b", "new")
    rows += [{**r, "id": f"again {r['id']}", "prompt": r["prompt"].replace(" ", "  ")} for r in rows]
    division = data.divide(data.usable(rows, words), ["new"])
    found = all_rows(division)
    assert len({r["id"] for r in found}) == len({" ".join(r["prompt"].split()) for r in found}) == len(found)
    assert len(found) == 40 * 2 + data.HELD_OUT  # of the new task, what does not measure is not used
    assert not any(r["id"].startswith("again") for r in found)


def test_no_row_of_the_pool_nearly_repeats_one_that_is_set_aside(data):
    long = [f"w{i}" for i in range(100)]
    rows = [row("a", n, " ".join([*long, str(n)])) for n in range(40)] + rows_of("b", "new")
    division = data.divide(rows, ["new"])
    aside = [r["prompt"] for r in [*division.held_out, *division.target, *division.tuning]]
    assert not twins_of(aside, [r["prompt"] for r in division.pool], data.NEAR)
    assert Counter(r["task"] for r in all_rows(division))["a"] == data.HELD_OUT  # all of its rows are alike
    assert Counter(r["task"] for r in division.pool)["b"] == 40 - data.HELD_OUT - data.TARGET - data.TUNING


def test_new_tasks_are_measured_and_marked_and_stand_nowhere_else(data):
    division = data.divide([*rows_of("a"), *(row("n", n, family="new") for n in range(40))], ["new"])
    assert Counter((r["task"], r["part"]) for r in division.held_out) == {("a", "known"): 6, ("n", "new"): 6}
    assert {r["task"] for r in [*division.pool, *division.target, *division.tuning]} == {"a"}


def test_a_small_task_stays_in_the_pool(data):
    division = data.divide([*rows_of("a", "new"), *rows_of("small", count=data.LEAST_ROWS - 1)], ["new"])
    assert Counter(r["task"] for r in division.pool)["small"] == data.LEAST_ROWS - 1
    assert "small" not in {r["task"] for r in [*division.held_out, *division.target, *division.tuning]}


def test_what_is_set_aside_does_not_depend_on_the_order_of_the_file(data):
    rows = rows_of("a", "b", "new")
    one, other = data.divide(rows, ["new"]), data.divide(rows[::-1], ["new"])
    assert (one.held_out, one.target, one.tuning) == (other.held_out, other.target, other.tuning)
    assert data.ids(one) == data.ids(data.divide(rows, ["new"]))


def test_texts_that_are_too_long_or_empty_are_not_used(data):
    rows = [
        row("a", 0, " ".join("x" * data.PROMPT_TOKENS)),
        row("a", 1, " ".join("y" * (data.PROMPT_TOKENS + 1))),
        {**row("a", 2), "response": " "},
        {**row("a", 3), "response": " ".join("z" * (data.RESPONSE_TOKENS + 1))},
        row("a", 4, "long " * 100),
    ]
    kept = data.usable(rows, lambda texts: [2 * len(text.split()) if "long" in text else 1 for text in texts])
    assert [r["id"] for r in kept] == ["a/0"]


def test_the_target_has_no_responses(data, tmp_path):
    data.write(data.divide(rows_of("a", "new"), ["new"]), tmp_path)
    for file, has in (("target", False), ("pool", True), ("held_out", True), ("tuning", True)):
        lines = [json.loads(line) for line in (tmp_path / f"{file}.jsonl").read_text().splitlines()]
        assert lines and all(("response" in line) is has for line in lines)


def test_other_rows_than_the_published_ones_are_refused(data, tmp_path):
    division = data.divide(rows_of("a", "new"), ["new"])
    assert not data.publish(division, tmp_path / "new" / "ids.csv.gz")
    assert data.publish(division, tmp_path / "new" / "ids.csv.gz")
    with pytest.raises(ValueError, match=r"40 of \d+ rows have another use"):
        data.publish(data.divide(rows_of("a", "b", "new"), ["new"]), tmp_path / "new" / "ids.csv.gz")


def test_a_family_that_the_file_lacks_is_named(data):
    with pytest.raises(ValueError, match="no rows of absent"):
        data.divide(rows_of("a"), ["absent"])


def line_of(job, **values):
    return {"arm": job.arm, "budget": job.budget, "seed": job.seed, "overrides": job.overrides, **values}


def test_blocks_finish_all_arms_of_a_seed_before_the_next(runs):
    jobs = runs.in_blocks(["x", "y"], [300, 1000], [0, 1])
    assert [(j.budget, j.seed, j.arm) for j in jobs] == [
        *((300, 0, "x"), (300, 0, "y"), (300, 1, "x"), (300, 1, "y")),
        *((1000, 0, "x"), (1000, 0, "y"), (1000, 1, "x"), (1000, 1, "y")),
    ]


@pytest.mark.parametrize("cut", [1, 3, 10])
def test_a_line_that_was_cut_off_is_done_again_and_replaced(runs, tmp_path, cut):
    file, jobs = tmp_path / "out" / "runs.csv", runs.in_blocks(["x", "y"], [300], [0])
    for job in jobs:
        runs.append(file, line_of(job))
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert [line["arm"] for line in runs.read(file)] == ["x"]
    runs.append(file, line_of(jobs[1]))
    assert file.read_bytes() == whole


def test_a_header_that_was_cut_off_is_written_again(runs, tmp_path):
    file, job = tmp_path / "runs.csv", runs.Job("x", 300, 0)
    file.write_text("arm,bud")
    assert runs.read(file) == []
    runs.append(file, line_of(job))
    assert [line["seed"] for line in runs.read(file)] == ["0"]


def test_runs_that_are_done_are_skipped_and_one_that_fails_does_not_stop_the_others(runs, tmp_path, monkeypatch):
    asked = []

    class Ended:
        def __init__(self, command, env, check):
            asked.append(command[2:])
            assert env["REAL_STUDY"] == str(tmp_path)
            self.returncode = int("experiments=real/bad" in command)

    monkeypatch.setattr(runs.subprocess, "run", Ended)
    monkeypatch.setattr(runs, "line_of", lambda job, store, data: line_of(job))
    jobs = [runs.Job("done", 300, 0), runs.Job("bad", 300, 0), runs.Job("done", 300, 0, "finetune.epochs=2")]
    file = tmp_path / "runs.csv"
    runs.append(file, line_of(jobs[0]))
    assert runs.run_all(jobs, tmp_path / "store", tmp_path, file, ["check=false"]) == [jobs[1]]
    assert [command[0] for command in asked] == ["experiments=real/bad", "experiments=real/done"]
    assert asked[1][3:] == ["finetune.epochs=2", f"store={tmp_path / 'store'}", "check=false"]
    assert len(runs.read(file)) == 2
    assert runs.run_all(jobs[::2], tmp_path / "store", tmp_path, file) == []
    assert len(asked) == 2


def test_means_weigh_known_tasks_alike_or_by_the_pool_and_new_tasks_apart(runs):
    tasks = ["a", "a", "b", "n", "n", "m"]
    values = {"likelihood": [0.2, 0.4, 0.9, 0.5, 0.7, 0.1]}
    found = runs._means(values, tasks, {"a": 0.25, "b": 0.25, "c": 0.5}, {"n", "m"})
    assert found["likelihood_tasks"] == pytest.approx(100 * (0.3 + 0.9) / 2)
    assert found["likelihood_pool"] == pytest.approx(100 * (0.5 * 0.3 + 0.5 * 0.9))
    assert found["likelihood_new"] == pytest.approx(100 * (0.6 + 0.1) / 2)
    skewed = runs._means(values, tasks, {"a": 0.9, "b": 0.1}, {"n", "m"})
    assert skewed["likelihood_pool"] == pytest.approx(100 * (0.9 * 0.3 + 0.1 * 0.9))
    assert skewed["likelihood_tasks"] == found["likelihood_tasks"]
    assert math.isnan(runs._means(values, ["a"] * 6, {"a": 1.0}, set())["likelihood_new"])


def made_up(runs, table, arms, seeds, shift):
    rng = np.random.default_rng(0)
    for seed in seeds:
        base = 30 + rng.normal()
        for arm in arms:
            measured = {
                f"{m}_{w}": base + shift.get(arm, 0) + rng.normal() / 5 for m in runs.MEASURES for w in table._TITLES
            }
            yield line_of(runs.Job(arm, table.PRIMARY_BUDGET, seed), response_tokens=3000 + seed, **measured)


def test_results_come_from_the_file_alone_and_agree_with_scipy(runs, table, tmp_path, capsys):
    file = tmp_path / "runs.csv"
    for line in made_up(runs, table, ["random", "rds", "rds_last", "longest"], range(5), {"rds_last": 2}):
        runs.append(file, line)
    lines = runs.read(file)
    found = {(r.measure, r.weighting, r.arm): r for r in table.results(lines)}
    for (measure, weighting, arm), result in found.items():
        ours, theirs = (
            [float(line[f"{measure}_{weighting}"]) for line in lines if line["arm"] == name] for name in (arm, "random")
        )
        assert result.score == pytest.approx(np.mean(ours)) and result.tokens == 3002
        if arm == "random":
            assert result.p is None and math.isnan(result.difference)
            continue
        test = stats.ttest_rel(ours, theirs)
        interval = test.confidence_interval(0.95)
        assert result.p == pytest.approx(test.pvalue) and result.p_holm >= result.p
        assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    named = table.primary(list(found.values()))
    assert {r.weighting: r.arm for r in named} == table.PRIMARY and len(named) == 3
    assert min(r.p_holm for r in named) == pytest.approx(3 * min(r.p for r in named))
    table.write(file)
    assert capsys.readouterr().out == (tmp_path / "results.md").read_text()
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + len(found)


def test_arms_are_paired_over_the_seeds_that_random_has_too(runs, table):
    lines = [line for line in made_up(runs, table, ["random", "rds"], range(4), {"rds": 1})]
    lines = [{name: str(value) for name, value in line.items()} for line in lines]
    kept = [line for line in lines if (line["arm"], line["seed"]) not in {("random", "3"), ("rds", "0")}]
    result = next(r for r in table.results(kept) if r.arm == "rds")
    assert (result.seeds, result.pairs) == (3, 2)
    one = [line for line in lines if line["seed"] == "0"]
    alone = next(r for r in table.results(one) if r.arm == "rds")
    assert alone.pairs == 1 and alone.p is None and math.isnan(alone.low) and not math.isnan(alone.difference)


def test_every_arm_of_the_study_is_a_file_and_tuning_uses_no_seed_of_it(study, table):
    script = study[3]
    assert all((ROOT / "experiments" / "real" / f"{arm}.yaml").exists() for arm in script.TIER_1)
    assert {"random", *table.PRIMARY.values()} <= set(script.TIER_1) and table.PRIMARY_BUDGET in script.BUDGETS
    jobs = script.tuning_jobs()
    assert len({job.key for job in jobs}) == len(script.LEARNING_RATES) * len(script.EPOCHS)
    assert not {job.seed for job in jobs} & set(script.SEEDS)


def test_the_design_and_the_scripts_name_the_same_arms_and_primary_comparisons(study, table):
    design = (ROOT / "experiments" / "real" / "DESIGN.md").read_text()
    tier_1 = design.partition("**Tier 1:**")[2].partition("Budgets")[0]
    assert re.findall(r"`(\w+)`", tier_1) == list(study[3].TIER_1)
    named = re.findall(r"^\| ([\w' ]+) \| `(\w+)` minus `random` \|", design, re.MULTILINE)
    assert named == list(zip(("tasks alike", "the pool's shares", "new tasks"), table.PRIMARY.values(), strict=True))


def test_recipes_are_ranked_by_the_mean_of_two_weightings(study):
    values = {"a": (20, 30), "b": (31, 20), "c": (10, 39)}
    lines = [{"overrides": n, "likelihood_tasks": str(x), "likelihood_pool": str(y)} for n, (x, y) in values.items()]
    assert study[3].ranked(lines) == ["25.5 b", "25.0 a", "24.5 c"]
