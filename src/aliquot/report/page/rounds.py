"""The tables of runs in several rounds: what each round reached and cost, and how long signals stay valid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from aliquot.experiment.prospect import Prospect
from aliquot.experiment.record import RoundRecord, RunRecord
from aliquot.report.analysis.numbers import price
from aliquot.report.analysis.study import Study
from aliquot.report.page.cells import NONE, Heading, PageCell, Table, count, number

#: (arm, limit, prompts after each round, or the number of rounds) -> runs
_Runs = Mapping[tuple[str, str, tuple[int, ...]], Sequence[RunRecord]]
_ARM = Heading("strategy", number=False)


def round_tables(study: Study) -> list[Table]:
    """Return a table of rounds and one of stability; without rows where no run has several rounds."""
    arms = {run: cell.arm.name for cell in study.cells for run in cell.runs}
    runs: dict[tuple[str, str, tuple[int, ...]], list[RunRecord]] = defaultdict(list)
    for record in study.records:
        if record.rounds and record.id in arms:
            # seeds buy different numbers for the same money
            reached = (len(record.rounds),) if record.limit else tuple(one.budget for one in record.rounds)
            runs[arms[record.id], record.limit, reached].append(record)
    return [_rounds(runs, study.benchmarks), _stability(runs)]


def _rounds(runs: _Runs, benchmarks: Sequence[str]) -> Table:
    rows = [
        _round(arm, place, [record.rounds[place] for record in records], benchmarks)
        for (arm, *_), records in sorted(runs.items())
        for place in range(len(records[0].rounds))
    ]
    columns = [_ARM, *(Heading(title) for title in ("round", "annotations", "their price"))]
    columns += [Heading(f"{name}, %") for name in benchmarks]
    columns += [Heading("next batch"), Heading("its projected gain, points of likelihood"), Heading("seeds")]
    note = (
        "Means over seeds. The projection is made from the losses of what was bought, before it was trained on; it is "
        "of the likelihood of responses, not of a benchmark."
    )
    return Table("What each round reached, and what the next batch was projected to gain", columns, rows, note)


def _round(arm: str, place: int, rounds: Sequence[RoundRecord], benchmarks: Sequence[str]) -> list[PageCell]:
    cost = fmean(one.cost for one in rounds)
    scores = [{metric.name: metric.value for metric in one.finetuned} for one in rounds]
    means = [_mean(found[name] for found in scores if name in found) for name in benchmarks]
    return [
        PageCell(arm),
        count(place + 1),
        count(round(fmean(one.budget for one in rounds))),
        PageCell(price(cost), cost) if cost else NONE,
        *(NONE if mean is None else PageCell(f"{100 * mean:.1f}", mean) for mean in means),
        *_projected([one.prospect for one in rounds if one.prospect]),
        count(len(rounds)),
    ]


def _projected(prospects: Sequence[Prospect]) -> tuple[PageCell, PageCell]:
    if not prospects:
        return NONE, NONE
    points, low, high = (fmean(getattr(p, name) for p in prospects) for name in ("points", "low", "high"))
    return count(prospects[0].num_prompts), PageCell(f"{points:.1f}", points, f"({low:.1f} to {high:.1f})")


def _stability(runs: _Runs) -> Table:
    rows = [
        [
            PageCell(arm),
            count(round(fmean(record.budget for record in records))),
            PageCell(name),
            number(_mean(f.correlation for f in found if f.correlation is not None), ".2f"),
            number(_mean(f.overlap for f in found), ".0%"),
        ]
        for (arm, *_), records in sorted(runs.items())
        for name in records[0].stability
        if (found := [record.stability[name] for record in records if name in record.stability])
    ]
    columns = (
        _ARM,
        Heading("annotations"),
        Heading("signal", False),
        Heading("rank correlation"),
        Heading("same picks"),
    )
    return Table("The signals of the last round's model, compared with the base model's", columns, rows)


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None
