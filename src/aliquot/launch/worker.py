"""The work on one task of a sweep: build its stage, and finish the runs whose stages are now complete.

A worker gets only the names of a sweep and a task; the configuration of a run leads it to the stage. Its command line
is therefore the same on this machine, in a SLURM job and after a requeue.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig, OmegaConf

from aliquot.config.create import create
from aliquot.config.help import explain
from aliquot.config.schema import Config, name_strategy
from aliquot.experiment.build import READERS, Experiment, Parts, build
from aliquot.experiment.pool import prepare_pool
from aliquot.experiment.record import find_run
from aliquot.experiment.run import build_stage, execute, try_model
from aliquot.launch.plan import task_name
from aliquot.launch.shared_store import REMEDY
from aliquot.launch.sweep import PlannedRun, Sweep, log_file, stage_directory, sweep_directory
from aliquot.runtime import terminal
from aliquot.stages import Annotate
from aliquot.store.lease import Lease
from aliquot.store.provenance import environment
from aliquot.store.store import Store, check_all, read_record

#: Printed on standard output at the end of a task, for the process that sent its name.
DONE, FAILED = "done", "failed"


def work(store: Store, sweep: Sweep, name: str) -> None:
    """Build the stage of one task, then finish every run of the sweep whose stages are all built.

    Raises:
        ValueError: the code, libraries or files differ from those with which the sweep was planned.
    """
    _check_environment(sweep)
    os.chdir(sweep.folder)
    experiment, cfg = _compose(store, sweep.run(sweep.task(name).run))
    stage = next((stage for stage in experiment.stages if task_name(stage) == name), None)
    if stage is None:
        raise ValueError(
            f"sweep {sweep.id} planned {name}, and its configuration now leads to "
            f"{', '.join(map(task_name, experiment.stages))}: a file it names has changed; run `{sweep.command}` again"
        )
    if store.record(stage) is None:
        check_all([stage])
        stage.check_devices()
        if create(cfg, "trainer").place().rank > 0:  # the first of several processes does the rest alone
            store.assist(stage)
            return
        if isinstance(stage, READERS):
            try_model(experiment, store)
        terminal.say(stage.title())
        build_stage(stage, experiment, store, cfg, create(cfg, "tracker"), sweep.label())
    for run in sweep.runs:
        if name in run.stages:
            finish(store, sweep, run)


def assigned(store: Store, sweep: str) -> Sweep:
    """Read the sweep that this process works for.

    Raises:
        ValueError: it is not in the store, as this machine sees it.
    """
    if not sweep_directory(store, sweep).is_dir():
        raise ValueError(f"sweep {sweep} is not in {store.root} on node {socket.gethostname()}; {REMEDY}")
    return Sweep.load(store, sweep)


def finish(store: Store, sweep: Sweep, run: PlannedRun) -> None:
    """Write a run's files for people, and mirror it, unless that is done or a stage is missing.

    A last stage that takes no time, such as the responses of an oracle, is no task of its own, and is built here.
    """
    directory = store.run_directory(run.id)
    *before, last = run.stages
    needed = before if last.startswith(f"{Annotate.name}-") else run.stages
    if find_run(directory) or any(read_record(stage_directory(store, stage)) is None for stage in needed):
        return  # early, because composing takes longer and sweeps have many runs
    experiment, cfg = _compose(store, run)
    missing = [stage for stage in experiment.stages if store.record(stage) is None]
    if experiment.open or experiment.waiting or any(stage.resources for stage in missing):
        return
    with Lease(directory / "lease", what=f"run {run.id}"):
        if find_run(directory) is None:
            execute(experiment, store, cfg, create(cfg, "tracker"), sweep.label())


def serve(store: Store, sweep: Sweep, names: TextIO) -> None:
    """Work on the tasks whose names arrive, one per line; answer each with a DONE or FAILED line on standard output.

    A worker that stays alive saves the imports, which take longer than a small stage.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    for line in names:
        name = line.strip()
        succeeded = attempt(store, sweep, name)
        print(DONE if succeeded else FAILED, name, file=answers, flush=True)


def attempt(store: Store, sweep: Sweep, name: str) -> bool:
    """Work on a task, with its output and any failure going to its log; tell whether it succeeded."""
    with _logged(log_file(store, sweep, name)):
        try:
            work(store, sweep, name)
        except Exception as error:
            message = None if os.environ.get("ALIQUOT_DEBUG") else explain(error)
            print(f"error: {message}" if message else traceback.format_exc(), file=sys.stderr)
            return False
    return True


@contextlib.contextmanager
def _logged(path: Path) -> Generator[None]:
    """Redirect standard output and error, including those of libraries and their children, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    streams = (sys.stdout, sys.stderr)
    before = [os.dup(stream.fileno()) for stream in streams]
    with open(path, "a", encoding="utf-8") as file:
        try:
            for stream in streams:
                stream.flush()
                os.dup2(file.fileno(), stream.fileno())
            yield
        finally:
            for stream, descriptor in zip(streams, before, strict=True):
                stream.flush()
                os.dup2(descriptor, stream.fileno())
                os.close(descriptor)


def _compose(store: Store, run: PlannedRun) -> tuple[Experiment, DictConfig]:
    """Make the experiment of a run from its saved configuration."""
    cfg = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(store.run_directory(run.id) / "config.yaml"))
    assert isinstance(cfg, DictConfig)
    name_strategy(cfg, run.strategy)  # configurations of older sweeps have no name
    parts = Parts.of(cfg, run.overrides)
    prepare_pool(parts, terminal.new_console(silent=parts.trainer.place().rank > 0))
    return build(parts), cfg


def _check_environment(sweep: Sweep) -> None:
    """Raise ValueError if this process would not compute what was planned."""
    here, planned = environment(), sweep.environment
    libraries = [
        f"{name} {here['libraries'].get(name)} (planned with {version})"
        for name, version in planned["libraries"].items()
        if here["libraries"].get(name) != version
    ]
    differences = libraries if here["python"] == planned["python"] else [f"Python {here['python']}", *libraries]
    if here["code"] != planned["code"]:
        differences.append(f"aliquot's code {here['code']} (planned with {planned['code']})")
    if differences:
        raise ValueError(
            f"this worker has different software than sweep {sweep.id} was planned with: {', '.join(differences)}; "
            f"run `{sweep.command}` again, in one environment"
        )
