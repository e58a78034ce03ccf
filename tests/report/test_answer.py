"""The answer's sentences: what they claim is what the findings say, wins and losses alike."""

import re
from dataclasses import replace

import pytest

from aliquot.report.analysis.findings import Comparison, Finding, Findings, Saved
from aliquot.report.analysis.statistics import Estimate
from aliquot.report.analysis.study import Arm
from aliquot.report.analysis.verdict import answers, verdict

RANDOM = Finding("mmlu", Arm("random", "random", {}), 1000, 3, 400, Estimate(0.5, 0, 0.5, 0.5), None, None, 0.0, ())


def finding(name, difference, p, budget=1000, saved=None, fewest_seeds=3):
    d = Estimate(difference, 0.01, difference - 0.02, difference + 0.02)
    comparison = Comparison(d, p and p / 10, p, fewest_seeds)
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
    assert "The highest difference that was tested is lucky at 1,000 annotations, +20.0 points" in found.detail
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


def test_one_seed_is_no_evidence_and_no_random_is_no_answer():
    single = [finding("good", 0.2, p=None, fewest_seeds=1), finding("bad", -0.2, p=None, fewest_seeds=1)]
    found = answer(*single)
    assert found.headline == "One seed cannot tell a gain on mmlu from chance: run at least one more."
    assert not {"beats", "reliabl", "Holm"} & set(re.findall(r"beats|reliabl|Holm", found.headline + found.detail))
    assert verdict(single[0].comparison) == "one seed"
    mixed = answer(*single, finding("tested", 0.01, p=0.5))
    assert mixed.headline == "No strategy is reliably better than random on mmlu."
    assert "The highest difference that was tested is tested" in mixed.detail
    assert "Of 1 comparison, none are" in mixed.detail
    assert "2 comparisons more could not be tested" in mixed.detail
    assert "the highest is good at 1,000 annotations, +20.0 points." in mixed.detail
    assert answer().headline == "Nothing can be compared with random on mmlu yet."


def test_answers_that_never_differ_are_no_evidence_either():
    found = answer(finding("same", 0.0, p=None))
    assert (
        found.headline
        == "Nothing can be distinguished from chance on mmlu: no seed and no question makes a difference there."
    )


def test_a_verdict_needs_a_corrected_p_below_the_level():
    verdicts = [
        verdict(f.comparison) for f in (finding("", 0.1, 0.049), finding("", -0.1, 0.049), finding("", 1, 0.05))
    ]
    assert verdicts == ["better", "worse", "unclear"]
