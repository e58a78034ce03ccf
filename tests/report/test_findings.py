"""What is found in studies made up from known accuracies."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from sklearn.isotonic import IsotonicRegression
from statsmodels.stats.multitest import multipletests
from synthetic import BUDGETS, make_study

from aliquot.experiment.record import RunRecord
from aliquot.report.analysis.annotations_saved import isotonic, saved
from aliquot.report.analysis.compare import find, trapezoid
from aliquot.report.analysis.study import NOT_TOLD, Annotations, Arm, Cell

RISING = (0.3, 0.4, 0.5, 0.6)


@pytest.fixture(scope="module")
def study():
    """Random, an arm that is better and one that is worse."""
    accuracy = {"random": RISING, "better": [a + 0.07 for a in RISING], "worse": [a - 0.07 for a in RISING]}
    return make_study(accuracy, num_seeds=5, num_questions=800)


@pytest.fixture(scope="module")
def found(study):
    return find(study)


def with_cells(study, change):
    """The study with its cells changed, or left out where `change` returns None."""
    return replace(study, cells=[new for cell in study.cells if (new := change(cell))])


def rows(cell, count):
    correct = {name: values[:count] for name, values in cell.correct.items()}
    return replace(cell, replicates=cell.replicates[:count], runs=cell.runs[:count], correct=correct)


def of(found, arm, budget, benchmark="demo_mmlu"):
    (finding,) = [f for f in found.findings if (f.benchmark, f.arm.name, f.budget) == (benchmark, arm, budget)]
    return finding


def test_there_is_a_finding_for_every_benchmark_and_cell_in_their_order(study, found):
    assert [(f.benchmark, f.arm, f.budget, f.runs) for f in found.findings] == [
        (name, cell.arm, cell.budget, cell.runs) for name in study.benchmarks for cell in study.cells
    ]
    for finding in found.findings:
        (cell,) = [c for c in study.cells if c.runs == finding.runs]
        assert finding.score.value == pytest.approx(cell.correct[finding.benchmark].mean())
        assert (finding.num_replicates, finding.num_questions) == (5, 800)
    assert list(found.base) == list(study.benchmarks)


def test_random_is_compared_with_nothing_and_the_others_with_random_at_their_budget(study, found):
    for finding in found.findings:
        if finding.arm.name == "random":
            assert finding.comparison is None
            assert finding.saved is None
        else:
            reference = of(found, "random", finding.budget, finding.benchmark)
            assert finding.comparison.difference.value == pytest.approx(finding.score.value - reference.score.value)
            assert (finding.comparison.difference.value > 0) == (finding.arm.name == "better")
    assert sum(f.comparison.p_adjusted < 0.05 for f in found.findings if f.comparison) >= 12  # of 16


@pytest.mark.slow
def test_p_values_are_adjusted_within_a_benchmark_as_statsmodels_does(found):
    for name in found.base:
        for kind in (found.findings, found.curves):
            family = [f.comparison for f in kind if f.benchmark == name and f.comparison]
            expected = multipletests([c.p for c in family], method="holm")[1]
            assert [c.p_adjusted for c in family] == pytest.approx(expected.tolist())


@pytest.mark.slow
def test_the_same_study_gives_the_same_findings_and_other_arms_change_no_interval(study, found):
    assert find(study) == found
    fewer = find(with_cells(study, lambda cell: None if cell.arm.name == "worse" else cell))
    ours, theirs = of(fewer, "better", 3000), of(found, "better", 3000)
    assert ours.score.low == pytest.approx(theirs.score.low, abs=1e-6)
    assert ours.comparison.difference.high == pytest.approx(theirs.comparison.difference.high, abs=1e-6)


@pytest.mark.slow
def test_under_the_null_hardly_any_study_has_an_adjusted_difference():
    wrong = 0
    for seed in range(60):
        flat = {arm: (0.4, 0.5) for arm in ("random", "a", "b")}
        null = make_study(flat, (1000, 3000), num_questions=60, seed=seed, benchmarks=("x",))
        wrong += any(f.comparison.p_adjusted <= 0.05 for f in find(null).findings if f.comparison)
    assert wrong <= 7  # 3 are expected; more than 7 have a chance of 1 %


def test_a_side_of_one_seed_gets_no_interval_no_test_and_a_note_that_counts_the_missing_seeds(study):
    one = find(with_cells(study, lambda cell: rows(cell, 1) if cell.arm.name == "better" else cell))
    finding = of(one, "better", 3000)
    assert finding.score.value == pytest.approx(of(one, "better", 3000).score.value)
    assert not finding.score.has_interval
    assert not finding.comparison.difference.has_interval
    assert (finding.comparison.p, finding.comparison.p_adjusted, finding.comparison.fewest_seeds) == (None, None, 1)
    assert (finding.saved.has_interval, finding.saved.low, finding.saved.high) == (False, None, None)
    (note,) = one.notes
    assert "better at 1,000 and 3,000" in note
    assert "At least 1 more seed is needed, better 4: run their commands again with -m seed=1,2,3,4." in note
    curve = next(line for line in one.curves if line.arm.name == "better")
    assert (curve.comparison.p, curve.area.has_interval) == (None, False)
    assert of(one, "worse", 3000).comparison.p < 0.05


def test_random_of_one_seed_tests_nobody(study):
    one = find(with_cells(study, lambda cell: rows(cell, 1) if cell.arm.name == "random" else cell))
    assert all(f.comparison.p is None and not f.saved.has_interval for f in one.findings if f.comparison)
    assert of(one, "better", 3000).score.has_interval


@pytest.mark.slow
def test_seeds_that_agree_by_chance_leave_an_interval_of_the_questions(study):
    """Right and wrong answers that add up to the same score in all seeds, though not on the same questions."""

    def agree(cell):
        rng = np.random.default_rng(len(cell.arm.name) + cell.budget)
        values = {name: np.stack([rng.permutation(v[0]) for _ in v]) for name, v in cell.correct.items()}
        return replace(cell, correct=values)

    for count in (2, 3, 5):  # the means of three or five differ in the last bit
        for finding in find(with_cells(study, lambda cell, count=count: rows(agree(cell), count))).findings:
            assert finding.score.high - finding.score.low > 0.01
            if finding.comparison:
                assert finding.comparison.difference.stderr > 0.005
                assert finding.comparison.p > 1e-6


@pytest.mark.slow
def test_no_interval_has_no_width_and_no_p_comes_of_nothing(study):
    def constant(cell):
        return replace(cell, correct={name: np.full_like(v, 0.25) for name, v in cell.correct.items()})

    for finding in find(with_cells(study, constant)).findings:
        assert not finding.score.has_interval
        if finding.comparison:
            assert (finding.comparison.p, finding.comparison.fewest_seeds) == (None, 5)
            assert not finding.saved.has_interval
    (note,) = [note for note in find(with_cells(study, constant)).notes if note.startswith("Not tested")]
    assert "better at 1,000" in note


def test_random_of_one_seed_at_one_budget_takes_nobodys_interval_of_annotations_saved(study):
    def thin(cell):
        return rows(cell, 1) if (cell.arm.name, cell.budget) == ("random", 30000) else cell

    saved = [f.saved for f in find(with_cells(study, thin)).findings if f.saved]
    assert all(s.has_interval for s in saved)
    assert {s.range[1] for s in saved} == {10000 / budget for budget in BUDGETS}


def test_a_note_names_arms_of_which_one_seed_alone_has_all_budgets(study):
    def change(cell):
        if cell.arm.name != "worse":
            return cell
        kept = [0, 1] if cell.budget < 3000 else [1, 2]
        correct = {name: values[kept] for name, values in cell.correct.items()}
        return replace(cell, replicates=tuple(cell.replicates[i] for i in kept), correct=correct)

    found = find(with_cells(study, change))
    assert "Only one seed has all budgets, so areas are not tested: worse. Run the missing seeds." in found.notes
    assert all(c.comparison.p is None for c in found.curves if c.arm.name == "worse")


def test_notes_name_budgets_without_random_and_the_command_that_adds_them(study):
    def change(cell):
        return None if cell.arm.name == "random" and cell.budget in (3000, 30000) else cell

    partly = find(with_cells(study, change))
    assert of(partly, "better", 3000).comparison is None
    assert of(partly, "better", 3000).saved is not None
    (note,) = partly.notes
    assert "3,000, 30,000" in note
    assert "python run.py -m strategy=random budget=3000,30000 seed=0,1,2,3,4" in note


def test_a_note_warns_of_annotations_saved_where_more_make_random_reliably_worse():
    def notes(*random):
        return find(make_study({"random": random, "better": [0.4, 0.7, 0.8, 0.7]}, benchmarks=("one",))).notes

    (note,) = notes(0.3, 0.6, 0.7, 0.6)
    assert re.match(r"Random falls on one by \d+\.\d points, from 10,000 to 30,000 annotations", note)
    assert not notes(0.3, 0.6, 0.7, 0.8)
    assert not notes(0.3, 0.6, 0.7, 0.695), "which may be luck"


def test_the_command_repeats_the_settings_that_all_runs_share(study):
    def record(*overrides):
        return RunRecord("r", "better", "p", 9, 1, 0, overrides, (), (), (), "")

    runs = (record("strategy=better", "seed=0", "pool=tulu", "x=1"), record("strategy=better", "seed=1", "pool=tulu"))
    alone = find(replace(with_cells(study, lambda c: None if c.arm.name == "random" else c), records=runs))
    assert alone.notes[0].endswith("seed=0,1,2,3,4 pool=tulu")


@pytest.mark.slow
def test_a_note_names_cells_that_were_trained_on_fewer_responses_than_prompts(study):
    assert not find(study).notes
    bills = {1000: Annotations(1000.0), 3000: Annotations(2860.5)}

    def lack(cell):
        return replace(cell, annotations=bills.get(cell.budget, NOT_TOLD)) if cell.arm.name == "better" else cell

    (note,) = find(with_cells(study, lack)).notes
    assert "better has 2,860 of 3,000. Have the rest annotated" in note


def test_a_note_names_cells_where_no_answer_differs_from_another(study):
    def fail(cell):
        nothing = {name: np.zeros_like(values) for name, values in cell.correct.items()}
        return replace(cell, correct=nothing) if (cell.arm.name, cell.budget) == ("worse", 1000) else cell

    notes = find(with_cells(study, fail)).notes
    assert len(notes) == len(study.benchmarks)
    said = " ".join(notes)
    assert all(f"All answers on {name} have the same score: worse at 1,000." in said for name in study.benchmarks)


@pytest.mark.slow
def test_the_mean_of_random_over_budgets_is_over_those_of_the_others(study):
    cells = tuple(cell for cell in study.cells if cell.arm.name == "random" or cell.budget < max(BUDGETS))
    curves = find(replace(study, cells=cells)).curves
    assert {curve.budgets for curve in curves} == {tuple(BUDGETS[:-1])}
    alone = find(replace(study, cells=tuple(cell for cell in study.cells if cell.arm.name == "random"))).curves
    assert {curve.budgets for curve in alone} == {tuple(BUDGETS)}


def test_without_random_there_are_scores_and_a_note(study):
    alone = find(with_cells(study, lambda cell: None if cell.arm.name == "random" else cell))
    assert all(f.comparison is None and f.saved is None for f in alone.findings)
    assert "strategy=random" in alone.notes[0]


def test_the_fit_is_the_isotonic_regression_of_scikit_learn():
    rng = np.random.default_rng(0)
    values, weights = rng.random((6, 40)), rng.integers(1, 6, 6)
    expected = [IsotonicRegression().fit_transform(np.arange(6), column, sample_weight=weights) for column in values.T]
    assert isotonic(values, weights) == pytest.approx(np.stack(expected, axis=1))


RATIOS, WEIGHTS = np.array([0.1, 1.0, 10.0]), np.array([3, 3, 3])


def reached(*values):
    draws = np.array(values)[:, None] + np.linspace(-1e-9, 1e-9, 99)
    return saved(np.array(values), draws, RATIOS, WEIGHTS)


@pytest.mark.parametrize(
    ("values", "ratio", "side"),
    [
        ((-0.1, 0.0, 0.1), 1.0, None),
        ((-0.3, -0.1, 0.1), np.sqrt(10.0), None),  # half way from 1 to 10 in log budget
        ((-0.3, -0.2, -0.1), None, "above"),
        ((0.1, 0.2, 0.3), None, "below"),
        ((0.02, 0.0, -0.02), 1.0, None),  # a curve that only falls, by noise, is flat: random is at its own budget
        ((0.0, 0.0, 0.0), 1.0, None),
        ((0.02, 0.0, -0.05), 1.0, None),
        ((0.05, -0.01, -0.01), None, "above"),  # worse than the arm at its budget, though the fit is better
    ],
)
def test_annotations_saved_are_where_random_reaches_the_arm(values, ratio, side):
    found = reached(*values)
    assert (found.ratio, found.side) == (pytest.approx(ratio), side)
    assert found.range == (0.1, 10.0)


def test_an_interval_beyond_the_budgets_of_random_ends_at_them_or_nowhere():
    above, below = reached(-0.3, -0.2, -0.1), reached(0.1, 0.2, 0.3)
    assert (above.low, above.high) == (10.0, None)
    assert (below.low, below.high) == (None, 0.1)


def curve(budget):
    return 0.3 + 0.25 * np.log10(budget / 1000)


@pytest.mark.slow
def test_intervals_of_annotations_saved_cover_the_truth(study):
    truths = {"equal": 1.0, "half saved": 2.0, "twice needed": 0.5}
    rng, covered = np.random.default_rng(1), dict.fromkeys(truths, 0)
    for _ in range(300):
        hardness = rng.standard_normal(100)

        def cell(arm, budget, accuracy, hardness=hardness):
            level = ndtri(accuracy) * np.sqrt(2) + 0.05 * rng.standard_normal((3, 1))
            correct = (rng.random((3, 100)) < ndtr(level + hardness)).astype(np.float32)
            return Cell(Arm(arm, arm, {}), budget, ("0", "1", "2"), ("0", "1", "2"), {"x": correct}, 0.0)

        cells = [cell("random", budget, curve(budget)) for budget in BUDGETS]
        cells += [cell(arm, 5000, curve(5000 * truth)) for arm, truth in truths.items()]
        for finding in find(replace(study, benchmarks=("x",), base={}, cells=cells)).findings:
            if (ends := finding.saved) is not None:
                truth = truths[finding.arm.name]
                covered[finding.arm.name] += (ends.low or 0) <= truth <= (ends.high or np.inf)
    coverage = {arm: 100 * count / 300 for arm, count in covered.items()}
    print(f"annotations saved | {coverage}")
    assert all(92 <= value <= 98.5 for value in coverage.values()), coverage


def test_the_area_is_numpys_trapezoid_over_log_budget(study, found):
    for line in found.curves:
        scores = [of(found, line.arm.name, budget, line.benchmark).score.value for budget in line.budgets]
        logs = np.log10(line.budgets)
        assert line.area.value == pytest.approx(np.trapezoid(scores, logs) / (logs[-1] - logs[0]), rel=1e-5)
        assert line.budgets == BUDGETS
    assert sum(trapezoid([10, 20, 1000])) == pytest.approx(1)
    better = next(line for line in found.curves if line.arm.name == "better")
    assert better.comparison.difference.value == pytest.approx(0.07, abs=0.02)
    assert better.comparison.p_adjusted < 0.01


def test_areas_are_compared_over_the_budgets_that_both_have(study):
    def change(cell):
        return None if (cell.arm.name, cell.budget) in (("random", 1000), ("better", 30000)) else cell

    found = find(with_cells(study, change))
    line = next(line for line in found.curves if line.arm.name == "better")
    differences = [of(found, "better", budget).comparison.difference.value for budget in (3000, 10000)]
    assert line.budgets == (1000, 3000, 10000)
    expected = np.dot(trapezoid((3000, 10000)), differences)
    assert line.comparison.difference.value == pytest.approx(expected, rel=1e-4)


def test_an_arm_without_a_seed_at_all_budgets_has_no_curve_and_a_note(study):
    def change(cell):
        return replace(cell, replicates=tuple("56789")) if cell.arm.name == "worse" and cell.budget == 1000 else cell

    found = find(with_cells(study, change))
    assert {line.arm.name for line in found.curves} == {"random", "better"}
    assert any("no area" in note and "worse" in note for note in found.notes)
