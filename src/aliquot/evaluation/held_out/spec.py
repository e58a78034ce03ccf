"""What is measured on held-out rows with responses, and the closed sets of responses that some of them have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aliquot.evaluation.held_out.source import HeldOutRows, HeldOutSource
from aliquot.evaluation.rows import records_of
from aliquot.pools.columns import ABSENT, Columns, check_conversations, lookup
from aliquot.pools.files import file_of
from aliquot.pools.record import Record
from aliquot.store.content import content_hash

if TYPE_CHECKING:
    from aliquot.models.spec import Model

#: The measures, in the order of reports.
EXACT_MATCH, TOKEN_F1, LIKELIHOOD, CHOICE = "exact_match", "token_f1", "likelihood", "choice_accuracy"
MEASURES = (EXACT_MATCH, TOKEN_F1, LIKELIHOOD, CHOICE)
_NAMED = 5  # tasks or options in an error


@dataclass(frozen=True)
class HeldOut(HeldOutSource):
    """Names held-out prompts with their responses. The model answers them, and is asked how likely each response is.

    Args:
        measures: which of `MEASURES`; None takes all that the rows allow.
        response: column of the right response.
        options: a file with the closed set of responses of each task, one row per task and response (the columns are
            those of `task` and `response`), or None. Never inferred from the rows that are scored.
        options_column: a column with the row's own closed set, a list of texts; it goes before `options`.
    """

    measures: Sequence[str] | None = None
    response: str = "response"
    options: str | None = None
    options_column: str = "options"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_conversations(self.turn, self.messages, {"response": (self.response, "response")}, "evaluate")
        unknown = [name for name in self.measures or () if name not in MEASURES]
        if unknown or (self.measures is not None and not self.measures):
            found = unknown[0] if unknown else "no measure"
            raise ValueError(f"evaluate.measures names {found}; choose from {', '.join(MEASURES)}, or null for all")

    @property
    def tasks(self) -> Sequence[str]:
        return self.measures or [name for name in MEASURES if name != CHOICE]

    @property
    def columns(self) -> Columns:
        return Columns(self.prompt, self.context, self.id, self.task, self.response, self.messages, self.turn)

    def identity(self) -> dict[str, object]:
        options = content_hash(file_of(self.options, "evaluate.options")) if self.options else None
        measures = None if self.measures is None else sorted(self.measures)
        return {**super().identity(), "options": options, "measures": measures}

    def rows(self) -> HeldOutRows:
        """Read the rows.

        Raises:
            ValueError: there are none; one has no prompt or no response; a closed set lacks the right response; or a
                measure is asked for that the rows do not allow.
        """
        found = self.read([self.options_column])
        of_task = self._options_by_task() if self.options else {}
        if self.options and not of_task.keys() & {row.task for _, row, _ in found}:
            ours = ", ".join(sorted({repr(row.task) for _, row, _ in found})[:_NAMED])
            raise ValueError(
                f"evaluate.options={self.options} has options of tasks {', '.join(map(repr, list(of_task)[:_NAMED]))}, "
                f"and the rows of evaluate.path={self.path} have tasks {ours}; use the same labels in both"
            )
        options = [
            _checked(record, row.task, str(said), _own_options(record, self.options_column) or of_task.get(row.task))
            for record, row, said in found
        ]
        if CHOICE in (self.measures or ()) and None in options:
            record, row, _ = found[options.index(None)]
            raise ValueError(
                f"evaluate.measures asks for {CHOICE}, and {record.place} has no closed set of responses: neither in "
                f"column '{self.options_column}', nor for task {row.task} in evaluate.options={self.options}; give "
                f"one, or leave {CHOICE} out of evaluate.measures"
            )
        return HeldOutRows.of(found, options)

    def measured(self, rows: HeldOutRows) -> Sequence[str]:
        """Return the measures that are taken of these rows."""
        if self.measures is not None:
            return [name for name in MEASURES if name in self.measures]
        return [name for name in MEASURES if name != CHOICE or any(rows.options)]

    def num_new(self, model: Model, longest: int) -> int:
        needed = self.measures is None or {EXACT_MATCH, TOKEN_F1}.intersection(self.measures)
        return super().num_new(model, longest) if needed else 0

    def _options_by_task(self) -> dict[str | None, list[str]]:
        """Read the file of closed sets: the distinct responses of each task, in the order of the file."""
        columns = [self.task or "task", self.response]
        found: dict[str | None, dict[str, None]] = {}
        for record in records_of(file_of(cast(str, self.options), "evaluate.options"), columns):
            task, option = lookup(record.fields, columns[0]), lookup(record.fields, columns[1])
            task = str(task) if isinstance(task, int) else task
            if not isinstance(task, str) or not task or not isinstance(option, str) or not option.strip():
                raise ValueError(
                    f"{record.place}: evaluate.options needs a task and a response in every row, in columns "
                    f"'{columns[0]}' and '{columns[1]}'; fill them in or drop the row"
                )
            found.setdefault(task, {})[option] = None
        return {task: list(options) for task, options in found.items()}


def _own_options(record: Record, column: str) -> list[str] | None:
    """Return the closed set in a row: a list of texts, in csv a JSON list."""
    value = lookup(record.fields, column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{record.place}: column '{column}' is not a JSON list ({error}); correct it") from error
    if value is None or value is ABSENT or value in ("", []):
        return None
    if not isinstance(value, list) or not all(isinstance(option, str) for option in cast(list[object], value)):
        raise ValueError(f'{record.place}: column \'{column}\' is not a list of texts; give one, such as ["yes", "no"]')
    return cast(list[str], value)


def _checked(record: Record, task: str | None, response: str, options: Sequence[str] | None) -> list[str] | None:
    """Return a closed set of at least two that holds the response, or None for none."""
    distinct = list(dict.fromkeys(options or ()))
    if not distinct:
        return None
    if response not in distinct:
        listed = ", ".join(map(repr, distinct[:_NAMED])) + (", ..." if len(distinct) > _NAMED else "")
        of = f" of task {task}" if task else ""
        raise ValueError(
            f"{record.place}: the right response {response!r} is not among the options{of} ({listed}); add it, or "
            "correct one of them: they must match exactly"
        )
    if len(distinct) == 1:
        raise ValueError(f"{record.place}: {response!r} is the only option, so there is no choice; give two or more")
    return distinct
