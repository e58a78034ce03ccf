"""Prepare the pool of an experiment, and compare held-out rows with it: the one part of building it that may take long.

Nothing else of it prints.
"""

from __future__ import annotations

from rich.console import Console

from aliquot.experiment.build import Parts, untried
from aliquot.experiment.work import do
from aliquot.runtime.terminal import say
from aliquot.store.store import check_all

#: The strategy that others are compared with, also in runs that choose toward a target.
REFERENCE = "random"
#: What has been printed about pools and held-out rows.
_SAID: set[str] = set()


def prepare_pool(parts: Parts, out: Console | None = None) -> None:
    """Read and clean the pool unless that is done; first check everything that can be known to fail without the pool.

    Args:
        parts: of the experiment.
        out: where to print; None is standard output.

    Raises:
        ValueError: the pool cannot be read, or a later stage is certain to fail.
    """
    prepare, store = parts.prepare, parts.store
    if store.record(prepare) is None:
        _prepare(parts, out)
    if parts.target.path and "target" not in parts.strategy.requires and parts.strategy_name != REFERENCE:
        _say_once(f"target: {parts.strategy_name} does not choose toward it, so {parts.target.path} is not read", out)
    target = parts.read_target(prepare.settled(store))
    if target and store.record(target) is None:
        check_all([target])
        say(target.title(), out)
        do(target, store)
    if target and (found := target.report(store).line(target.source.name)):
        _say_once(found.replace("pool 'target'", "target", 1), out)
    overlap = parts.overlap(prepare.settled(store))
    if overlap and store.record(overlap) is None:
        check_all([overlap])
        say(overlap.title(), out)
        do(overlap, store)
    if overlap and (found := store.get(overlap).line(overlap.held_out)):
        _say_once(found, out)


def _say_once(text: str, out: Console | None) -> None:
    """Print a line unless another experiment of this process has: those of a sweep find the same."""
    if text not in _SAID:
        say(text, out)
        _SAID.add(text)


def _prepare(parts: Parts, out: Console | None) -> None:
    prepare, store = parts.prepare, parts.store
    stages = [stage for stage in parts.draft() if store.record(stage) is None]
    first = untried(parts.trial, stages, store)
    check_all([first, *stages] if first else stages)
    store.check_writable()
    say(prepare.title(), out)
    do(prepare, store)
    if lost := prepare.report(store).line(prepare.source.name):
        say(f"{lost}: {store.directory(prepare)}", out)
