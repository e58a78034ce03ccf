"""The answer's sentences: what they claim is what the findings say, wins and losses alike."""

from dataclasses import replace

import pytest

from aliquot.report.answer import answers, interval, p_value, points, saved_interval, verdict
from aliquot.report.findings import Comparison, Estimate, Finding, Findings, Saved
from aliquot.report.study import Arm

RANDOM = Finding("mmlu", Arm("random", "random", {}), 1000, 3, 400, Estimate(0.5, 0, 0.5, 0.5), None, None, 0.0, ())


def finding(name, difference, p, budget=1000, saved=None, fewest_seeds=3):
    d = Estimate(difference, 0.01, difference - 0.02, difference + 0.02)
    comparison = Comparison(d, p / 10, p, "Welch's t", fewest_seeds)
    return replace(RANDOM, arm=Arm(name, name, {}), budget=budget, comparison=comparison, saved=saved)


def answer(*findings):
    (found,) = answers(Findings({"mmlu": RANDOM.score}, [RANDOM, *findings], [], []))
    return found


def test_the_largest_reliable_gain_is_the_headline_and_not_the_largest_of_all():
    found = answer(finding("lucky", 0.2, p=0.2), finding("small", 0.01, p=0.001), finding("good", 0.03, 0.04, 3000))
    assert found.headline == "good beats random on mmlu: +3.0 points of accuracy at 3,000 annotations."
    assert "95 % +1.0 to +5.0, Holm p = 0.040" in found.detail
    assert "Of 3 comparisons, 2 are reliably better and none are reliably worse." in found.detail


def test_no_reliable_gain_is_said_first_and_the_losses_are_counted():
    found = answer(finding("lucky", 0.2, p=0.05), finding("bad", -0.1, p=1e-5), finding("worst", -0.15, p=1e-6))
    assert found.headline == "No strategy is reliably better than random on mmlu."
    assert "The highest difference is lucky at 1,000 annotations, +20.0 points" in found.detail
    assert "none are reliably better and 2 are reliably worse: the largest loss is worst" in found.detail
    assert "\N{MINUS SIGN}15.0 points (95 % \N{MINUS SIGN}17.0 to \N{MINUS SIGN}13.0, Holm p < 0.001)" in found.detail


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (Saved(1.84, 1.2, 2.5, None, (0.3, 10)), "random needs 1.8 times as many annotations for it (95 % 1.2 to 2.5)"),
        (Saved(1.84, 1.2, None, None, (0.3, 10)), "1.8 times as many annotations for it (95 % at least 1.2)"),
        (Saved(None, 1.2, None, "above", (0.3, 10)), "random does not reach that accuracy with 10,000 annotations"),
        (None, "Holm p = 0.010). Of"),
    ],
)
def test_annotations_saved_are_part_of_the_answer_where_they_are_known(saved, said):
    assert said in answer(finding("good", 0.03, p=0.01, saved=saved)).detail


def test_single_seeds_are_a_warning_and_no_random_is_no_answer():
    assert "These are single seeds" in answer(finding("good", 0.03, p=0.01, fewest_seeds=1)).detail
    assert "These are single seeds" not in answer(finding("good", 0.03, p=0.01)).detail
    assert answer().headline == "Nothing can be compared with random on mmlu yet."


def test_numbers_have_a_sign_and_no_digits_that_mean_nothing():
    assert [points(x) for x in (0.0123, -0.0123, 0.0004, -0.0004)] == ["+1.2", "\N{MINUS SIGN}1.2", "0.0", "0.0"]
    assert [p_value(p) for p in (0.5, 0.0123, 1e-9)] == ["p = 0.50", "p = 0.012", "p < 0.001"]
    assert interval(Estimate(0, 0, -0.01, 0.02)) == "\N{MINUS SIGN}1.0 to +2.0"
    assert [saved_interval(Saved(1, *ends, None, (0.1, 9))) for ends in ((None, 2.0), (0.5, None), (None, None))] == [
        "at most 2.0",
        "at least 0.50",
        "",
    ]


def test_a_verdict_needs_a_corrected_p_below_the_level():
    verdicts = [
        verdict(f.comparison) for f in (finding("", 0.1, 0.049), finding("", -0.1, 0.049), finding("", 1, 0.05))
    ]
    assert verdicts == ["better", "worse", "unclear"]
