"""What is read from a store: which runs are compared, what they are called, which of them pair."""

import json
import shutil

import numpy as np
import pytest
from synthetic_store import (
    COSINE,
    EXACT,
    FACILITY_LOCATION,
    MODEL,
    RECIPE,
    SCORER,
    SyntheticStore,
    facility_location,
    random,
)

from aliquot.report.reading import read_studies


@pytest.fixture
def store(tmp_path):
    return SyntheticStore(tmp_path)


def only(root):
    (study,) = read_studies(root)
    return study


def names(study):
    return [cell.arm.name for cell in study.cells]


def test_a_cell_has_the_answers_of_its_runs_benchmark_by_benchmark_in_the_order_of_the_files(store):
    answers = {"moth": [1.0, 0.0] * 15, "crab": [1.0] * 12, "count": [0.0] * 19 + [1.0]}
    first = store.add("random", random(0), 100, correct=answers)
    second = store.add("random", random(1), 100, seed=1)
    (cell,) = (study := only(store.root)).cells
    assert study.benchmarks == ("demo_mmlu", "demo_bbh")
    assert (cell.arm.name, cell.budget, cell.replicates, cell.runs) == ("random", 100, ("0", "1"), (first, second))
    assert cell.correct["demo_mmlu"].shape == (2, 42)
    assert cell.correct["demo_mmlu"].dtype == np.float32
    assert cell.correct["demo_mmlu"][0].tolist() == answers["moth"] + answers["crab"]
    assert cell.correct["demo_bbh"][0].tolist() == answers["count"]
    base = json.loads((store.root / "evaluate" / study.records[0].stages[2][1] / "correct.json").read_text())
    assert study.base["demo_mmlu"].tolist() == base["moth"] + base["crab"]
    assert [record.id for record in study.records] == [first, second]


def test_likelihoods_are_kept_as_they_are(store):
    values = [0.123456, 1e-05, 0.0, 1.0, 0.75] * 6
    store.add("random", random(0), 100, correct={"moth": values})
    np.testing.assert_allclose(only(store.root).cells[0].correct["demo_mmlu"][0, :30], values, rtol=1e-6)


@pytest.mark.parametrize("odd", ["2.0", "0.5", "1.5", "9.0"])
def test_one_answer_that_is_neither_right_nor_wrong_is_read_among_many_that_are(store, odd):
    for seed in range(3):  # the layout of the first file is that of the others
        store.add("random", random(seed), 100, seed=seed)
    values = [1.0, 0.0] * 14 + [float(odd), 1.0]
    store.add("random", random(3), 100, seed=3, correct={"moth": values})
    np.testing.assert_array_equal(only(store.root).cells[0].correct["demo_mmlu"][3, :30], values)


def test_an_arm_is_named_after_the_settings_in_which_arms_of_its_strategy_differ(store):
    store.add("random", random(0), 100)
    store.add("facility_location", facility_location(), 100)
    assert names(only(store.root)) == ["facility_location", "random"]
    store.add("facility_location", facility_location(gamma=0.1), 100)
    assert names(only(store.root)) == [
        "facility_location kernel.gamma=0.1",
        "facility_location kernel.gamma=0.25",
        "random",
    ]
    store.add("facility_location", FACILITY_LOCATION | {"kernel": COSINE}, 100)
    assert names(only(store.root))[:3] == [
        "facility_location kernel=Cosine",
        "facility_location kernel=RBF kernel.gamma=0.1",
        "facility_location kernel=RBF kernel.gamma=0.25",
    ]


def test_parameters_are_dotted_and_hold_the_scorer_of_an_arm_that_reads_signals_but_no_seed(store):
    store.add("random", random(3), 100)
    store.add("facility_location", facility_location(gamma=0.1), 100)
    location, reference = (cell.arm for cell in only(store.root).cells)
    assert reference.parameters == {"type": "Random"}
    assert location.parameters["kernel.gamma"] == 0.1
    assert location.parameters["scorer.position"] == "last"
    assert not any("seed" in name for name in location.parameters)


def test_a_setting_that_only_one_version_has_still_tells_arms_apart(store):
    store.add("facility_location", FACILITY_LOCATION, 100)
    store.add("facility_location", FACILITY_LOCATION | {"version": 2}, 100)
    store.add("facility_location", FACILITY_LOCATION | {"mode": EXACT | {"blocks": 3}}, 100)
    assert sorted(names(only(store.root))) == [
        "facility_location",
        "facility_location mode.blocks=3",
        "facility_location version=2",
    ]


def test_arms_that_read_other_signals_differ(store):
    store.add("k_center", {"type": "aliquot.selection.strategies.k_center.KCenter", "version": 1}, 100)
    store.scorer = SCORER | {"position": "mean"}
    store.add("k_center", {"type": "aliquot.selection.strategies.k_center.KCenter", "version": 1}, 100)
    store.add("random", random(), 100)
    assert names(only(store.root)) == ["k_center scorer.position=last", "k_center scorer.position=mean", "random"]


def test_seeds_make_replicates_that_pair_across_arms(store):
    for seed in (0, 1, 10, 2):
        store.add("random", random(seed), 100, seed)
        store.add("facility_location", facility_location(), 100, seed)  # its kernel stays at seed 0
    location, reference = only(store.root).cells
    assert location.replicates == reference.replicates == ("0", "1", "2", "10")


def test_a_seed_of_the_strategy_that_differs_makes_replicates(store):
    for seed in (0, 7):
        store.add("random", random(seed), 100, seed=0)
    for kernel_seed in (0, 1):
        for mode_seed in (0, 2):
            mode = {"type": "aliquot.selection.greedy.modes.Stochastic", "version": 1, "seed": mode_seed}
            store.add("facility_location", facility_location(seed=kernel_seed) | {"mode": mode}, 100)
    location, reference = only(store.root).cells
    assert reference.replicates == ("0", "0/7")
    assert location.replicates == ("0", "0/kernel.seed=1", "0/kernel.seed=1/mode.seed=2", "0/mode.seed=2")


def test_cells_are_sorted_and_budgets_need_not_be_the_same(store):
    for budget in (3000, 500, 10_000):
        store.add("random", random(), budget)
    store.add("longest", {"type": "aliquot.selection.strategies.longest.Longest", "version": 1}, 500)
    assert [(c.arm.name, c.budget) for c in only(store.root).cells] == [
        ("longest", 500),
        ("random", 500),
        ("random", 3000),
        ("random", 10_000),
    ]


def test_choosing_costs_the_scoring_pass_and_the_ranking(store):
    store.add("random", random(), 100)
    store.add("facility_location", facility_location(), 100)
    assert [cell.selection_seconds for cell in only(store.root).cells] == [90.0, 30.0]


def test_a_recipe_that_differs_makes_two_studies_named_after_it(store):
    for seed in (0, 1):
        store.add("random", random(seed), 100, seed)
    store.recipe = RECIPE | {"learning_rate": 0.001}
    store.add("random", random(0), 100)
    larger, smaller = read_studies(store.root)
    assert larger.name == "demo, aliquot.demo/model, finetune.learning_rate=0.002"
    assert smaller.name == "demo, aliquot.demo/model, finetune.learning_rate=0.001"
    assert [len(study.records) for study in (larger, smaller)] == [2, 1]
    assert larger.setting["finetune.learning_rate"] == "0.002"
    assert larger.setting["model.weights"] == "4a4a4a4a"


@pytest.mark.parametrize("changed", [{"limit": 5}, {"model": {"weights": "5b" * 32, "template": "x"}}])
def test_other_questions_or_another_model_make_another_study(store, changed):
    store.add("random", random(0), 100)
    vars(store).update(changed)
    store.add("random", random(0), 100)
    assert len(read_studies(store.root)) == 2


def test_runs_that_were_not_evaluated_are_in_no_study_and_no_warning(store, caplog):
    store.add("random", random(0), 100)
    stopped = store.add("random", random(1), 100)
    file = store.root / "runs" / stopped / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base": [], "finetuned": []}))
    assert only(store.root).cells[0].replicates == ("0",)
    assert not caplog.messages


def test_a_sweep_is_named_by_its_id_or_the_beginning_of_it(store):
    chosen = store.add("random", random(0), 100)
    store.add("random", random(1), 100, seed=1)
    store.plan("abcd1234", [chosen, "0000-not-finished"])
    store.plan("ffff0000", [])
    (study,) = read_studies(store.root, ["abc"])
    assert study.cells[0].runs == (chosen,)
    assert read_studies(store.root, ["ffff"]) == []
    with pytest.raises(ValueError, match=r"0 sweeps named 'xyz...' are in .*; name one of abcd1234, ffff0000"):
        read_studies(store.root, ["xyz"])


def gone(stage):
    """Delete the records of a stage that one run alone has."""

    def damage(root, record):
        keys = {name.split()[0]: key for name, key, _ in record["stages"]}
        (root / stage / keys[stage] / "stage.json").unlink()

    return damage


def forget_answers(root, record):
    (root / "evaluate" / record["stages"][-1][1] / "correct.json").unlink()


def other_questions(root, record):
    file = root / "evaluate" / record["stages"][-1][1] / "correct.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"count": [1.0] * 21}))


def another_order(root, record):
    file = root / "evaluate" / record["stages"][-1][1] / "correct.json"
    file.write_text(json.dumps(dict(reversed(json.loads(file.read_text()).items()))))


def other_answers(root, record):
    file = root / "evaluate" / record["stages"][-1][1] / "correct.json"
    answers = json.loads(file.read_text())
    file.write_text(json.dumps(answers | {"count": [1 - value for value in answers["count"]]}))


def other_count(root, record):
    file = root / "runs" / record["id"] / "results.json"
    record["finetuned"][1]["num_questions"] = 19
    file.write_text(json.dumps(record))


def half_written(root, record):
    (root / "runs" / record["id"] / "results.json").write_text('{"id": ')


def older(root, record):
    file = root / "finetune" / record["stages"][-2][1] / "stage.json"
    record = json.loads(file.read_text())
    del record["fields"]["recipe"]["seed"]
    file.write_text(json.dumps(record))


DAMAGES = {
    gone("select"): "stage.json is gone",
    gone("annotate"): "stage.json is gone",
    gone("finetune"): "stage.json is gone",
    gone("evaluate"): "stage.json is gone",
    forget_answers: "No such file",
    other_questions: "21|other tasks",
    another_order: "other tasks",
    other_answers: "by its questions",
    other_count: "it has 42 questions of demo_mmlu, 19 questions of demo_bbh, where most runs have",
    half_written: "results.json cannot be read",
    older: "the records of its stages have no 'seed'",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_that_cannot_be_read_is_one_warning_and_the_rest_is_reported(store, caplog, damage):
    kept = [store.add("facility_location", facility_location(gamma=gamma), 100) for gamma in (0.1, 0.2)]
    broken = store.add("random", random(5), 100)
    damage(store.root, json.loads((store.root / "runs" / broken / "results.json").read_text()))
    study = only(store.root)
    assert [run for cell in study.cells for run in cell.runs] == kept
    assert [record.id for record in study.records] == kept
    (warning,) = caplog.messages
    assert f"left out: {broken}: " in warning
    assert any(words in warning for words in DAMAGES[damage].split("|")), warning
    assert "run it again" in warning


def test_a_scoring_pass_that_is_gone_is_one_warning_for_all_its_runs(store, caplog):
    lost = [store.add("facility_location", facility_location(gamma=gamma), 100) for gamma in (0.1, 0.2, 0.3, 0.4, 0.5)]
    store.add("random", random(), 100)
    shutil.rmtree(store.root / "score")
    assert names(only(store.root)) == ["random"]
    (warning,) = caplog.messages
    assert f"left out: {', '.join(lost[:3])} and 2 more: score/" in warning


def test_a_base_evaluation_that_is_gone_leaves_its_answers_unknown(store, caplog):
    store.add("random", random(), 100)
    base = json.loads(next(store.root.glob("runs/*/results.json")).read_text())["stages"][2][1]
    (store.root / "evaluate" / base / "correct.json").unlink()
    study = only(store.root)
    assert all(np.isnan(values).all() for values in study.base.values())
    assert "left out: the base model in" in caplog.text


def test_a_name_is_one_line_whatever_differs(store):
    store.add("random", random(0), 100)
    store.model = MODEL | {"template": "{prompt}\n{response}"}
    store.add("random", random(0), 100)
    names = {study.name for study in read_studies(store.root)}
    assert names == {
        'demo, aliquot.demo/model, model.template="{prompt}\\nAnswer: {response}"',
        'demo, aliquot.demo/model, model.template="{prompt}\\n{response}"',
    }
