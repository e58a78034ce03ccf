"""The tables of the page, in display order."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aliquot.evaluation.wording import measured
from aliquot.experiment.arm import marked
from aliquot.experiment.record import RunRecord
from aliquot.report.analysis.numbers import percent, price
from aliquot.report.analysis.statistics import Estimate
from aliquot.report.analysis.study import Study
from aliquot.report.page.cells import (
    NONE,
    Heading,
    PageCell,
    Table,
    accuracy,
    compared,
    count,
    difference,
    judged,
    needed,
    number,
    seconds,
    times_saved,
)

if TYPE_CHECKING:
    from aliquot.report.analysis.findings import Curve, Finding, Findings
    from aliquot.report.selections.picks import Picks, Summary

#: Maximum rows of runs on the page; runs.csv has them all.
RUNS_SHOWN = 300

_STRATEGY, _BUDGET = Heading("strategy", number=False), Heading("annotations", filter=True)
_BENCHMARK, _VERDICT = Heading("benchmark", number=False, filter=True), Heading("verdict", number=False, filter=True)
_WHERE = (_STRATEGY, _BUDGET, _BENCHMARK)
_COMPARED = (Heading("difference, points"), Heading("standard error"), Heading("p"), Heading("p, Holm"), _VERDICT)


def result_table(findings: Findings) -> Table:
    """Return one row per benchmark, budget and strategy, the best of each budget first."""
    measure = measured(*findings.base)
    columns = (Heading(f"{measure}, %"), Heading("against random, points"), _VERDICT, Heading("annotations saved"))
    order = {name: place for place, name in enumerate(findings.base)}
    rows = [
        (
            *_where(f),
            accuracy(f.score, _measured_on(f)),
            difference(f.comparison),
            judged(f.comparison),
            times_saved(f.saved),
            count(f.num_replicates),
        )
        for f in sorted(findings.findings, key=lambda f: (order[f.benchmark], f.budget, -f.score.value))
    ]
    known = [f"{name} {percent(e)} %" for name, e in findings.base.items() if not math.isnan(e.value)]
    note = f"Before finetuning: {', '.join(known)}." if known else ""
    return Table(
        f"{measure.capitalize()} after finetuning, with 95 % intervals",
        (*_WHERE, *columns, Heading("seeds")),
        rows,
        note,
    )


def difference_table(findings: Findings) -> Table:
    """Return one row per comparison with random."""
    rows = [(*_where(f), *compared(f.comparison)) for f in findings.findings if f.comparison]
    columns = (*_WHERE, *_COMPARED, Heading("fewest seeds"))
    return Table("Strategy minus random, same budget and questions", columns, rows)


def saved_table(findings: Findings) -> Table:
    """Return one row per arm and budget whose accuracy was looked up on random's curve."""
    rows = [(*_where(f), times_saved(f.saved), needed(f, f.saved)) for f in findings.findings if f.saved]
    columns = (*_WHERE, Heading("annotations saved"), Heading("random would need"))
    return Table(
        f"Annotations that random needs for the same {measured(*findings.base)}, over the strategy's own", columns, rows
    )


def area_table(curves: Sequence[Curve]) -> Table:
    """Return one row per benchmark and arm with several budgets."""
    rows = [
        (
            PageCell(curve.arm.name),
            PageCell(curve.benchmark),
            accuracy(curve.area),
            *compared(curve.comparison)[:5],
            PageCell(f"{curve.budgets[0]:,} to {curve.budgets[-1]:,}, {len(curve.budgets)} budgets"),
        )
        for curve in curves
    ]
    measure = measured(*(curve.benchmark for curve in curves))
    columns = (_STRATEGY, _BENCHMARK, Heading(f"mean {measure}, %"), *_COMPARED, Heading("over", number=False))
    return Table(f"Area under the {measure} over the logarithm of the budget", columns, rows)


def cost_table(findings: Findings) -> Table:
    """Return one row per arm and budget: the cost of selection, and the gain on each benchmark."""
    cells: dict[tuple[str, float], dict[str, Finding]] = {}
    for f in findings.findings:
        cells.setdefault((f.arm.name, f.budget), {})[f.benchmark] = f
    rows = [
        (
            PageCell(arm),
            count(budget),
            seconds(max(f.selection_seconds for f in found.values())),
            *_bought(next(iter(found.values()))),
            *(difference(found[name].comparison) if name in found else NONE for name in findings.base),
        )
        for (arm, budget), found in cells.items()
    ]
    gains = [Heading(f"{name} against random, points") for name in findings.base]
    bought = (
        Heading("responses of a run"),
        Heading("tokens trained on"),
        Heading("from", number=False),
        Heading("their price"),
    )
    columns = (_STRATEGY, _BUDGET, Heading("choosing, device-seconds"), *bought, *gains)
    return _without_empty("Cost of selection and annotation, and the gain", columns, rows)


def _bought(f: Finding) -> tuple[PageCell, ...]:
    """Write the cost of annotation."""
    bought = f.annotations
    cost = NONE if bought.cost is None else PageCell(price(bought.cost), bought.cost)
    responses, tokens = (number(value, ",.0f") for value in (bought.number, bought.tokens))
    return responses, tokens, PageCell(bought.by) if bought.by else NONE, cost


def pick_table(picks: Picks) -> Table:
    """Return one row per arm, and one for the pool; columns without data in the store are left out."""
    titles = ("tasks", "as diverse as", "mean tokens", "pool to pick", "pick to pick", "same features", "shared")
    rows = [_picked(summary) for summary in picks.summaries()]
    columns = [_STRATEGY, *(Heading(title) for title in titles)]
    caption = f"What was picked: {picks.budget:,} of {picks.num_prompts:,} prompts, one run a strategy"
    return _without_empty(caption, columns, rows)


def _without_empty(caption: str, columns: Sequence[Heading], rows: Sequence[Sequence[PageCell]]) -> Table:
    """Leave out the columns in which no row has a value."""
    kept = [place for place in range(len(columns)) if any(row[place] != NONE for row in rows)]
    return Table(caption, [columns[place] for place in kept], [[row[place] for place in kept] for row in rows])


def _picked(s: Summary) -> tuple[PageCell, ...]:
    return (
        PageCell(s.arm),
        number(s.num_tasks, ",d"),
        number(s.effective_tasks, ",.0f"),
        number(s.mean_length, ",.1f"),
        number(s.coverage, ".3f"),
        number(s.redundancy, ".3f"),
        number(s.duplicates, ".1%"),
        number(s.overlap, ".1%"),
    )


def run_table(study: Study, runs: str, urls: Mapping[str, str]) -> Table:
    """Return one row per run, newest first, up to `RUNS_SHOWN`.

    Args:
        study: the study of the runs.
        runs: the directory of runs, relative to the page.
        urls: run -> its address in W&B, if it has one.
    """
    arms = {run: cell.arm.name for cell in study.cells for run in cell.runs}
    shown = list(reversed(study.records))[:RUNS_SHOWN]
    rows = [
        (
            PageCell(run.id, link=f"{runs}/{run.id}/"),
            PageCell(arms.get(run.id, marked(run.strategy, run.uses_response))),
            count(run.budget),
            count(run.seed),
            *_scores(run, study.benchmarks),
            PageCell(run.finished[:16].replace("T", " "), run.finished),
            _tracked(urls.get(run.id, "")),
            PageCell(shlex.join(["python", "run.py", *run.overrides]), code=True),
        )
        for run in shown
    ]
    columns = [Heading("run", False), Heading("strategy", False, filter=True), _BUDGET, Heading("seed")]
    columns += [Heading(f"{name}, %") for name in study.benchmarks]
    columns += [Heading(title, number=False) for title in ("finished", "W&B", "command")]
    more = len(study.records) > len(shown)
    note = f"The newest {len(shown):,} of {len(study.records):,} runs; runs.csv has them all." if more else ""
    return Table("Finished runs, newest first", columns, rows, note)


def _scores(run: RunRecord, benchmarks: Sequence[str]) -> list[PageCell]:
    scores = {metric.name: metric for metric in run.finetuned}
    return [
        accuracy(Estimate(m.value, m.stderr), f"one seed, {m.num_questions:,} questions")
        if (m := scores.get(name))
        else NONE
        for name in benchmarks
    ]


def _tracked(url: str) -> PageCell:
    return PageCell("open", link=url) if url.startswith(("https://", "http://")) else NONE


def _where(f: Finding) -> tuple[PageCell, PageCell, PageCell]:
    return PageCell(f.arm.name), count(f.budget), PageCell(f.benchmark)


def _measured_on(f: Finding) -> str:
    return f"{f.num_replicates} seed{'s' if f.num_replicates > 1 else ''}, {f.num_questions:,} questions"
