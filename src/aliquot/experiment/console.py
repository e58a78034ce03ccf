"""What a run prints: the plan first, then one line per stage, and the results at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aliquot.evaluation.held_out.run import ROWS_FILE
from aliquot.evaluation.wording import WEIGHED, measured
from aliquot.experiment.arm import marked
from aliquot.experiment.build import Experiment
from aliquot.experiment.prospect import Prospect
from aliquot.experiment.quote import quote
from aliquot.experiment.record import RoundRecord, RunRecord
from aliquot.experiment.rounds import next_budget
from aliquot.runtime.numbers import gain, with_error
from aliquot.runtime.terminal import new_console, print_table, say
from aliquot.store.provenance import of_other_libraries
from aliquot.store.store import Stage, Store
from aliquot.types import Metric


def show_plan(experiment: Experiment, store: Store, out: Console) -> None:
    """Print what will be done, what is already done, and how much annotators may cost."""
    if out.quiet:
        return  # the cost needs the pool, and the note on the model its tokenizer
    strategy = marked(experiment.strategy, experiment.uses_response)
    rounds = len(experiment.planned)
    most = "up to " if experiment.stop_below is not None else ""
    say(
        f"{strategy}: {most}{_about(experiment)} of the {experiment.num_prompts:,} prompts of pool '{experiment.pool}'"
        f"{f', in {most}{rounds} rounds' if rounds > 1 else ''}, seed {experiment.seed}",
        out,
    )
    show_models([experiment], out)
    table = Table("", "stage", "key", "", box=None, pad_edge=False, header_style="dim")
    for number, stage in enumerate(experiment.stages, start=1):
        record = store.record(stage)
        state = "to do" if record is None else f"done ({record['seconds']:.0f} s, {record['finished'][:16]})"
        table.add_row(str(number), stage.title(), stage.key, state)
    print_table(table, out)
    show_libraries(experiment.stages, store, out)
    show_quote(quote([experiment], store), out)


def _about(experiment: Experiment) -> str:
    """Return the number of prompts or, within a budget in money or tokens, an estimate and the limit."""
    limit = experiment.whole_limit
    return f"at most {limit} for about {experiment.budget:,}" if limit else f"{int(experiment.planned[-1]):,}"


def show_models(experiments: Iterable[Experiment], out: Console | None = None) -> None:
    """Name each pair of model and benchmark once, and mention a chat template that is not used."""
    for (model, benchmark), one in {(e.model.path, e.benchmark): e for e in experiments}.items():
        say(f"model {model}, benchmark {benchmark}", out)
        if one.unused_chat:
            say(
                "Note: the tokenizer of the model has a chat template, but model.template is another; if the model "
                "is an instruct model, set model.template=chat",
                out,
            )


def show_libraries(stages: Iterable[Stage[Any]], store: Store, out: Console | None = None) -> None:
    """Print, one line per kind of stage, which existing results were made with other library versions."""
    found: dict[str, dict[str, str]] = {}
    for stage in {stage.key: stage for stage in stages}.values():
        if (record := store.record(stage)) and (other := of_other_libraries(record)):
            found.setdefault(stage.name, {})[stage.key] = other
    for name, keys in found.items():
        (key, other), number = next(iter(keys.items())), len(keys)
        results = f"{name} {key}" if number == 1 else f"{number:,} results of {name}, such as {key}"
        say(f"Reused: {results}, made with {other}. To make it again, delete its folder in {store.root / name}.", out)


def show_quote(cost: float, out: Console | None = None) -> None:
    """Print the maximum cost before anything is bought; print nothing where it is free."""
    if cost:
        say(f"Paid responses cost at most about {cost:,.2f}, including those already received.", out)


def show_checked(trials: Iterable[str]) -> None:
    """Print that the checks passed, the results of the trials, and what was done although this was only a check."""
    for line in trials:
        say(line)
    say("Checked: everything is in order. Nothing was done, except that the pool was read.")


def show_round(number: int, one: RoundRecord) -> None:
    """Print the scores of a round and what the next batch is projected to gain."""
    scores = ", ".join(f"{metric.name} {_percent(metric)}" for metric in one.finetuned)
    cost = f", cost {one.cost:,.2f}" if one.cost else ""
    say(f"Round {number + 1}       {one.budget:,} annotations{cost}: {scores}")
    if one.prospect:
        say(f"              {one.prospect}")


def show_end_of_rounds(experiment: Experiment, store: Store) -> None:
    """Say that later rounds were not worth it, if they were not."""
    last = experiment.rounds[-1] if experiment.rounds else None
    if experiment.stop_below is None or last is None or last.bought is None or experiment.open:
        return
    ended = len(experiment.rounds)
    if ended < len(experiment.planned) and store.record(last.bought):
        following = next_budget(last, experiment.planned, ended - 1, experiment.num_prompts, store)
        prospect = Prospect.after(last.bought, following, store)
        say(f"Ended after round {ended} of {len(experiment.planned)}: {prospect}; stop_below={experiment.stop_below:g}")


def show_results(run: RunRecord, directory: Path, computed: int, command: str) -> None:
    """Print the scores, their cost, where the files are, and the suggested next command."""
    if not computed:
        say("\nEverything was done already; nothing was computed.")
    if run.finetuned:
        new_console().print()
        new_console().print(_scores(run))
    if not computed:
        for number, one in enumerate(run.rounds):
            show_round(number, one)
    for name, found in run.stability.items():
        kept = "" if found.correlation is None else f", rank correlation {found.correlation:.2f}"
        say(f"Stability     {name}: {100 * found.overlap:.0f} % of the same prompts by the last model{kept}")
    seconds = ", ".join(f"{name} {seconds:.0f}" for name, _, seconds in run.stages)
    new_console().print()
    if (directory / "selected.jsonl").exists():
        say(f"{_chosen(run)}: {_shown(directory)}selected.jsonl")
    say(f"Seconds       {seconds}; {sum(s for _, _, s in run.stages):.0f} in all")
    say(f"Results       {_shown(directory)}")
    key = next((key for name, key, _ in run.stages if name == "evaluate finetuned"), "")
    answers = directory.parents[1] / "evaluate" / key / ROWS_FILE
    if key and answers.exists():
        say(f"Row by row    {_shown(answers.parent)}{ROWS_FILE}")
    say(f"Next          {command}")


def _chosen(run: RunRecord) -> str:
    """Say how many prompts were selected and, if annotated, how many got responses and from which annotator."""
    by = marked(run.strategy, run.uses_response)
    chosen = f"{run.budget:,} of {run.num_prompts:,} prompts by {by}"
    if not any(name == "annotate" for name, _, _ in run.stages):
        return f"Chosen        {chosen}"
    if run.num_annotated not in (None, run.budget):
        chosen = f"{run.num_annotated:,} of {run.budget:,} chosen of {run.num_prompts:,} prompts by {by}"
    cost = f", by {run.annotator}, cost {run.annotation_cost:,.4f}" if run.annotation_cost else ""
    limit = f", within {run.limit}" if run.limit else ""
    return f"Annotated     {chosen}{cost}{limit}"


def _scores(run: RunRecord) -> Table:
    measure = measured(*(metric.name for metric in run.finetuned))
    table = Table(f"{measure}, %", "base", "finetuned", "gain", "questions", box=None, pad_edge=False)
    base = {metric.name: metric for metric in run.base}
    for metric in run.finetuned:
        before = base[metric.name]
        change = gain(before, metric)
        table.add_row(metric.name, _percent(before), _percent(metric), change, f"{metric.num_questions:,}")
        for weighting, value in metric.weighted.items():
            both = before.weighted[weighting], value
            pair = [Metric("", mean, stderr, metric.num_questions) for mean, stderr in both]
            table.add_row(f"  {WEIGHED[weighting]}", *map(_percent, pair), gain(*pair), "")
    return table


def _percent(metric: Metric) -> str:
    return with_error(metric.value, metric.stderr)


def _shown(path: Path) -> str:
    """Return a path, relative to the current directory where it lies below it."""
    return f"{path.relative_to(Path.cwd())}/" if path.is_relative_to(Path.cwd()) else f"{path}/"


def show_runs(runs: Sequence[RunRecord]) -> None:
    """Print all runs as a table, with one line per run and one column per benchmark."""
    benchmarks = sorted({metric.name for run in runs for metric in run.finetuned})
    table = Table("strategy", "budget", "seed", "pool", *benchmarks, "seconds", "run", box=None, pad_edge=False)
    for run in runs:
        scores = {metric.name: _percent(metric) for metric in run.finetuned}
        seconds = f"{sum(s for _, _, s in run.stages):,.0f}"
        table.add_row(
            run.arm or _arm_of_older(run),
            run.limit or f"{run.budget:,}",
            str(run.seed),
            run.pool,
            *(scores.get(name, "-") for name in benchmarks),
            seconds,
            run.id,
        )
    new_console().print(table)


def _arm_of_older(run: RunRecord) -> str:
    """Return the strategy and what the command line changed of it, for a record without an arm."""
    changes = [o.removeprefix("strategy.") for o in run.overrides if o.startswith(("strategy.", "strategy/"))]
    return " ".join([marked(run.strategy, run.uses_response), *changes])
