"""All figures of a study, in the order of a report.

Their names begin with their content: areas, accuracy, differences, saved, cost, ablation, picks. If there is one
figure per benchmark, the name ends in the benchmark.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from aliquot.report.analysis.findings import Findings
from aliquot.report.analysis.study import Study
from aliquot.report.figures.ablation import draw_ablation, find_ablations
from aliquot.report.figures.accuracy import draw_accuracy
from aliquot.report.figures.drawing import Drawing, styled
from aliquot.report.figures.intervals import draw_areas, draw_cost, draw_differences, draw_saved
from aliquot.report.figures.selections import PICK_FIGURES
from aliquot.report.selections.picks import Picks
from aliquot.selection.greedy.workers import num_cores

_PER_PROCESS = 2  # minimum figures that justify starting a process


def draw(study: Study, findings: Findings, picks: Picks | None) -> list[Drawing]:
    """Return the figures of a study that have content.

    Args:
        study: the runs.
        findings: of the study.
        picks: the picks, or None if they are unknown.
    """
    return [drawing for make in _makers(study, findings, picks) if (drawing := _drawn(make))]


def draw_into(folder: Path, study: Study, findings: Findings, picks: Picks | None) -> list[Drawing]:
    """Write the figures of a study to a directory, using all cores, and return them as SVG."""
    makers = _makers(study, findings, picks)
    processes = min(num_cores(), len(makers) // _PER_PROCESS)
    context = get_context("forkserver")  # does not copy the threads of this process or repeat all imports
    context.set_forkserver_preload([__name__, "matplotlib.figure", "matplotlib.backends.backend_svg"])
    with ProcessPoolExecutor(max(1, processes), context) as pool:
        return [drawing for drawing in pool.map(_saved, makers, repeat(folder)) if drawing]


def _makers(study: Study, findings: Findings, picks: Picks | None) -> list[Callable[[], Drawing | None]]:
    arms = list({cell.arm.name: cell.arm for cell in study.cells}.values())
    similarity = picks.similarity if picks else {}
    by_benchmark = (draw_accuracy, draw_differences, draw_saved, draw_cost)
    return [
        partial(draw_areas, findings),
        *(partial(make, findings, benchmark) for make in by_benchmark for benchmark in study.benchmarks),
        *(partial(draw_ablation, ablation, findings, similarity) for ablation in find_ablations(arms)),
        *(partial(make, picks) for make in PICK_FIGURES if picks),
    ]


def _drawn(make: Callable[[], Drawing | None]) -> Drawing | None:
    with styled():
        return make()


def _saved(make: Callable[[], Drawing | None], folder: Path) -> Drawing | None:
    if drawing := _drawn(make):
        drawing.save(folder)
    return drawing
