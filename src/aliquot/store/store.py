"""Finished work is never repeated: stages, their keys, and the directory of their results.

A stage is a frozen dataclass whose fields are everything its result depends on. The hash of those fields is its key,
and `<store>/<stage>/<key>` is its directory, the same one after every restart, so that a new attempt resumes from the
files of an interrupted one. `stage.json` is written last, by rename; without it the stage is not done.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from aliquot.store.lease import Lease
from aliquot.store.provenance import peak_memory_gb, provenance, reset_peak_memory
from aliquot.store.shipped import named

T = TypeVar("T")
#: Takes the values that a stage logs while it runs, such as the loss.
OnMetrics = Callable[[dict[str, Any]], object]
#: A function and its arguments.
Check = tuple[Callable[..., object], *tuple[object, ...]]
_RECORD = "stage.json"
_PRESENT = object()  # equals no value, so a field with this default for `absent` is never left out
#: Entries of a key other than the fields of a class or a stage.
_RESERVED = {"type", "version", "code", "stage"}


@dataclass(frozen=True)
class Stage(Generic[T]):
    """One unit of work with one result.

    `key_fields` says which fields are in the key.
    """

    name: ClassVar[str]
    #: Raise this number when the code changes the result for the same fields.
    version: ClassVar[int] = 1

    @property
    def resources(self) -> str | None:
        """The launcher's name for a separate job's requests; None if the stages that need this one build it first."""
        return self.name

    def inputs(self) -> dict[str, object]:
        """Return what the result depends on; the key is its hash."""
        return key_fields(self)

    @functools.cached_property
    def key(self) -> str:
        """The identity of the result, 16 hexadecimal digits."""
        text = json.dumps(canonical({"stage": self.name, "version": self.version, **self.inputs()}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_input(self) -> dict[str, object]:
        """Return what stands for the result in the keys of stages that read it."""
        return {"stage": self.name, "key": self.key}

    def upstream(self) -> list[Stage[Any]]:
        """Return the stages among the fields; this stage reads their results."""
        values = [getattr(self, f.name) for f in dataclasses.fields(self)]
        return [value for value in values if isinstance(value, Stage)]

    def title(self) -> str:
        """Say in a few words what the stage does, and how much of it."""
        return self.name

    def size(self) -> float:
        """Return the amount of work, in units of this kind of stage: seconds are estimated from it."""
        return 1.0

    def checks(self) -> Sequence[Check]:
        """Return calls that raise ValueError for problems that can be detected before any work is done.

        Each is a function and its arguments. Stages that agree in a call share it: the hundreds of stages of a sweep
        have a few models and benchmarks.
        """
        return ()

    def check_devices(self) -> None:
        """Raise ValueError if this machine lacks the devices that `build` needs."""

    def assist(self, store: Store, directory: Path) -> None:
        """Do a share of the work, if this process is one of several that run the same experiment together.

        Called without the lease, which the first process holds while it builds. An assisting process gets the lease
        afterwards, and finds the stage done, or builds it in place of a process that died.
        """

    @property
    def depth(self) -> int:
        """How far a result must go that others may extend under the same key, such as a ranking; 0 for all others."""
        return 0

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        """Compute the result into `directory`, resuming from the files of an earlier attempt.

        Args:
            store: for the results of other stages.
            directory: of this stage.
            on_metrics: takes the values that are logged meanwhile.
        """
        raise NotImplementedError

    def load(self, directory: Path) -> T:
        """Read the result back."""
        raise NotImplementedError


def upstream_first(stages: Iterable[Stage[Any]]) -> Iterator[Stage[Any]]:
    """Yield the stages, each once and after the stages that it depends on.

    Stages of one key that differ in depth, such as rankings for two budgets, are all yielded.
    """
    seen: set[tuple[str, str, int]] = set()

    def visit(stage: Stage[Any]) -> Iterator[Stage[Any]]:
        known = stage.name, stage.key, stage.depth
        if known not in seen:
            seen.add(known)  # before its upstream, which never contains it
            for upstream in stage.upstream():
                yield from visit(upstream)
            yield stage

    for stage in stages:
        yield from visit(stage)


def check_all(stages: Iterable[Stage[Any]]) -> None:
    """Make every check of the stages once.

    Raises:
        ValueError: a stage is known to fail.
    """
    made: list[Check] = []
    for stage in stages:
        for check in stage.checks():
            if check not in made:
                call, *arguments = check
                call(*arguments)
                made.append(check)


def key_fields(value: object) -> dict[str, object]:
    """Return the fields of a dataclass that belong to its key, by name.

    `metadata={"key": False}` leaves out a field that affects how the result is computed, but not the result.

    A new field would change every key, and old results would be computed again. It therefore says what its absence
    means, `metadata={"absent": x}`, and is left out while it equals x. Set x to what the code did before the field was
    added, and never change it, even if the default changes: old results were computed with x.

    Raises:
        ValueError: a field has a name that is reserved in keys.
    """
    fields = [f for f in dataclasses.fields(cast(Any, value)) if f.metadata.get("key", True)]
    if taken := _RESERVED & {f.name for f in fields}:
        raise ValueError(
            f"field {' and '.join(sorted(taken))} of {type(value).__name__}: a key uses {', '.join(sorted(_RESERVED))} "
            "for something else; rename the field (the version of a class is not a field: version: ClassVar[int] = 2)"
        )
    values = {f.name: getattr(value, f.name) for f in fields}
    return {f.name: values[f.name] for f in fields if f.metadata.get("absent", _PRESENT) != values[f.name]}


def canonical(value: object) -> object:
    """Reduce a value to JSON so that equal meanings give equal text: 1 and 1.0, tuples and lists.

    A stage is represented by the result of `as_input()`; any other dataclass by the result of `named` for its class
    (name, version and, unless it is shipped, code) and by its `key_fields`. An object with `identity()` is represented
    by that result, and by its class only if the class has a version other than 1 or is not shipped.
    """
    if isinstance(value, Stage):
        return canonical(cast("Stage[Any]", value).as_input())
    if hasattr(value, "identity"):
        identity, kind = canonical(cast(Any, value).identity()), named(type(value))
        plain = kind["version"] == 1 and "code" not in kind
        return identity if plain else {**kind, "identity": identity}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return named(type(value)) | {k: canonical(v) for k, v in key_fields(value).items()}
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in cast(Mapping[object, object], value).items()}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in cast(list[object], value)]
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    assert value is None or isinstance(value, (bool, int, float, str)), f"{value!r} has no place in a key"
    return value


class Pending(ValueError):
    """A stage waits for people: this is not an error, but stages that read it cannot continue without them."""


def ignore(values: dict[str, Any]) -> None:
    """Take logged values and do nothing."""


class Store:
    """A directory of finished and half-finished stages, safe to share between processes and machines."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()

    @property
    def runs(self) -> Path:
        """The directory that holds the directories of all runs."""
        return self.root / "runs"

    def run_directory(self, run: str) -> Path:
        """Return the directory of a run's files for people, by the id of the run."""
        return self.runs / run

    def directory(self, stage: Stage[Any]) -> Path:
        """Return the directory of the stage's files, whether it is done or not."""
        return self.root / stage.name / stage.key

    def record(self, stage: Stage[Any]) -> dict[str, Any] | None:
        """Return the record of a finished stage, or None if the stage is not done."""
        record = read_record(self.directory(stage))
        return record if record is not None and record.get("depth", 0) >= stage.depth else None

    def get(self, stage: Stage[T]) -> T:
        """Return the stage's result; if it is not done, build it, and any upstream stages that its `build` asks for."""
        self.ensure(stage)
        try:
            return stage.load(self.directory(stage))
        except FileNotFoundError as error:
            folder = self.directory(stage)
            raise ValueError(
                f"{error.filename} is gone, though {stage.name} is done; delete the folder {folder} to make it again"
            ) from error

    def ensure(self, stage: Stage[Any], on_metrics: OnMetrics = ignore) -> None:
        """Build the stage unless it is done. One process builds; the others wait for it.

        Args:
            stage: what to build.
            on_metrics: takes the values that the stage logs while this process builds it.
        """
        if self.record(stage) is not None:
            return
        self.assist(stage)
        directory = self.directory(stage)
        with Lease(directory / "lease", what=f"{stage.name} {stage.key}") as lease:
            if self.record(stage) is not None:
                return  # another process finished it while we waited
            earlier = read_record(directory)  # of a result that this one continues from, such as a shallower ranking
            started = time.monotonic() - (earlier["seconds"] if earlier else 0)
            reset_peak_memory()
            try:
                stage.build(self, directory, on_metrics)
            except Pending:
                raise
            except Exception:
                write_atomic(directory / "error.txt", traceback.format_exc())
                raise
            (directory / "error.txt").unlink(missing_ok=True)
            seconds = time.monotonic() - started
            lease.check()
            if dataclasses.replace(stage).key != stage.key:
                raise ValueError(f"a file that {stage.name} reads was changed while it ran; run it again")
            write_atomic(directory / _RECORD, json.dumps(self._record(stage, seconds), indent=2) + "\n")

    def assist(self, stage: Stage[Any]) -> None:
        """Do this process's share of a stage that is not done, if it has one."""
        directory = self.directory(stage)
        if self.record(stage) is None:
            directory.mkdir(parents=True, exist_ok=True)
            stage.assist(self, directory)

    def check_writable(self) -> None:
        """Raise OSError if the store is not writable, without writing to it."""
        folder = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a part of it is a file", str(self.root))
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "not permitted, or mounted read-only", str(self.root))

    def _record(self, stage: Stage[Any], seconds: float) -> dict[str, Any]:
        return {
            "stage": stage.name,
            "key": stage.key,
            "version": stage.version,
            "fields": canonical(stage.inputs()),
            "upstream": [f"{up.name}/{up.key}" for up in stage.upstream()],
            **({"depth": stage.depth} if stage.depth else {}),
            "size": stage.size(),
            "seconds": round(seconds, 2),
            "peak_memory_gb": peak_memory_gb(),
            **provenance(),
        }


def read_record(directory: Path) -> dict[str, Any] | None:
    """Return the record in a stage's directory, or None if the stage is not done."""
    try:
        return json.loads((directory / _RECORD).read_text())
    except FileNotFoundError:
        return None


def write_atomic(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
