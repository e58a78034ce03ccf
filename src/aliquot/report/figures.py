"""All figures of a study, in the order in which a report tells them.

Their names begin with what they show: accuracy, differences, saved, cost, ablation, picks. Of what is drawn for each
benchmark, the benchmark ends the name.
"""

from __future__ import annotations

from aliquot.report.ablation import draw_ablation, find_ablations
from aliquot.report.accuracy import draw_accuracy
from aliquot.report.drawings import Drawing, styled
from aliquot.report.findings import Findings
from aliquot.report.pick_figures import draw_picks
from aliquot.report.picks import Picks
from aliquot.report.study import Study
from aliquot.report.whiskers import draw_cost, draw_differences, draw_saved


def draw(study: Study, findings: Findings, picks: Picks | None) -> list[Drawing]:
    """Return the figures of a study, of those that there is something to draw in.

    Args:
        study: the runs.
        findings: what they say.
        picks: what was picked, or None where that is not known.
    """
    arms = list({cell.arm.name: cell.arm for cell in study.cells}.values())
    similarity = picks.similarity if picks else {}
    with styled():
        drawings = [
            make(findings, benchmark)
            for make in (draw_accuracy, draw_differences, draw_saved, draw_cost)
            for benchmark in study.benchmarks
        ]
        drawings += [draw_ablation(ablation, findings, similarity) for ablation in find_ablations(arms)]
        drawings += draw_picks(picks) if picks else []
    return [drawing for drawing in drawings if drawing]
