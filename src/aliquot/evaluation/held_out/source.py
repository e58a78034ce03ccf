"""Held-out rows: how a config names a file of them, and what they are once they are read."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aliquot.evaluation.rows import AnsweredRow, read_answered
from aliquot.pools.columns import FIRST, Columns, check_conversations
from aliquot.pools.files import file_of
from aliquot.store.content import content_hash
from aliquot.store.store import key_fields

if TYPE_CHECKING:
    from aliquot.models.spec import Model

log = logging.getLogger(__name__)

#: What to do with a row whose prompt also stands in the pool.
REFUSE, DROP, KEEP = "refuse", "drop", "keep"
OVERLAPS = (REFUSE, DROP, KEEP)


@dataclass(frozen=True)
class HeldOutRows:
    """Held-out rows in the order of their file.

    Args:
        ids: of the rows.
        tasks: their labels, or None unless every row has one.
        prompts: the text of each.
        responses: the right response of each, or None.
        options: the closed set of responses of each row, the right one among them; None for a row without one.
    """

    ids: Sequence[str]
    tasks: Sequence[str] | None
    prompts: Sequence[str]
    responses: Sequence[str | None]
    options: Sequence[Sequence[str] | None]

    @classmethod
    def of(cls, found: Sequence[AnsweredRow], options: Sequence[Sequence[str] | None]) -> HeldOutRows:
        """Arrange rows as they were read, with the closed set of each."""
        ids, prompts = [row.id for _, row, _ in found], [row.prompt for _, row, _ in found]
        return cls(ids, _labels_of(found), prompts, [response for *_, response in found], options)

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def given(self) -> Sequence[Sequence[str]]:
        """The responses whose likelihood is asked for: the closed set, the right response alone, or none."""
        alone = [[] if right is None else [right] for right in self.responses]
        return [options or right for options, right in zip(self.options, alone, strict=True)]

    def only(self, rows: Sequence[int]) -> HeldOutRows:
        """Return some of the rows."""
        ids, prompts = [self.ids[i] for i in rows], [self.prompts[i] for i in rows]
        tasks = None if self.tasks is None else [self.tasks[i] for i in rows]
        return HeldOutRows(ids, tasks, prompts, [self.responses[i] for i in rows], [self.options[i] for i in rows])


@dataclass(frozen=True)
class HeldOutSource:
    """Names held-out prompts, and says how a model answers them; the base of what is measured on its answers.

    Args:
        path: a jsonl, csv or parquet file, compressed or not.
        overlap: what to do with a row whose prompt also stands in the pool, exactly or nearly, one of `OVERLAPS`.
        near: how alike such prompts are: the share of their runs of five words that both have.
        prompt: column of the prompt.
        context: column of further text, as in a pool.
        id: column of the id, as in a pool.
        task: column of the task label, as in a pool.
        messages: column of conversations instead, or None, as in a pool.
        turn: the user turn that is answered, as in a pool.
        limit: read only the first N rows; None reads all.
        max_new_tokens: the longest response of the model; None means the longest response or option in the file, at
            most half of model.max_tokens.
        tokens_per_batch: padding and response included. Padding moves likelihoods in the last bits, so it is part of
            the identity.
    """

    #: What asks about the rows, whose settings it reads, and what a row is called, in messages.
    stage: ClassVar[str] = "evaluate"
    group: ClassVar[str] = "evaluate"
    row: ClassVar[str] = "held-out row"
    #: Whether rows are put in the model's template and cut to its `max_tokens`.
    reads_format: ClassVar[bool] = True

    path: str
    overlap: str = REFUSE
    near: float = 0.9
    prompt: str = "prompt"
    context: str | None = None
    id: str | None = "id"
    task: str | None = "task"
    messages: str | None = None
    turn: str = FIRST
    limit: int | None = None
    max_new_tokens: int | None = None
    tokens_per_batch: int = 4096

    def __post_init__(self) -> None:
        replaced = {"prompt": (self.prompt, "prompt"), "context": (self.context, None)}
        check_conversations(self.turn, self.messages, replaced, "evaluate")
        for name in ("limit", "tokens_per_batch", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"evaluate.{name}={value} is too small; give at least 1")
        if self.overlap not in OVERLAPS:
            raise ValueError(f"evaluate.overlap={self.overlap} is unknown; choose one of {', '.join(OVERLAPS)}")
        if not 0 < self.near <= 1:
            raise ValueError(f"evaluate.near={self.near} is not a share; give more than 0 and at most 1")

    @property
    def tasks(self) -> Sequence[str]:
        """The names of the scores, as far as they are known before the rows are read."""
        raise NotImplementedError

    @property
    def columns(self) -> Columns:
        """The columns, by their role."""
        return Columns(self.prompt, self.context, self.id, self.task, "response", self.messages, self.turn)

    def of_prompts(self) -> dict[str, object]:
        """Identify the prompts alone."""
        return {"content": content_hash(file_of(self.path)), "columns": self.columns, "limit": self.limit}

    def identity(self) -> dict[str, object]:
        """Identify the rows by content; what is done about overlap is the business of the stage `Overlap`."""
        fields = {name: value for name, value in key_fields(self).items() if name not in ("path", "overlap", "near")}
        kept = {"overlap": KEEP} if self.overlap == KEEP else {}
        return {"kind": type(self).__name__, **fields, **kept, "content": content_hash(file_of(self.path))}

    def check(self) -> None:
        """Raise ValueError if a row cannot be used."""
        self.rows()

    def bare(self) -> HeldOutSource:
        """Return the spec without the fields that do not change its questions."""
        kept = ("path", "prompt", "context", "messages", "turn")
        return HeldOutSource(**{name: getattr(self, name) for name in kept}, id=None, task=None)

    def questions(self) -> Sequence[str]:
        """Return the text of every prompt."""
        return [row.prompt for _, row, _ in read_answered(file_of(self.path), self.columns, None, answered=False)]

    def rows(self) -> HeldOutRows:
        """Read the rows; their responses are not read.

        Raises:
            ValueError: there are none, or one cannot be used.
        """
        found = self.read(answered=False)
        return HeldOutRows.of(found, [None] * len(found))

    def read(self, more: Collection[str] = (), answered: bool = True) -> list[AnsweredRow]:
        """Read the rows with the named further columns; `answered` requires a response in each.

        Raises:
            ValueError: there are none; one has no prompt, or no response although one is required.
        """
        found = list(read_answered(file_of(self.path), self.columns, self.limit, more, answered))
        if not found:
            raise ValueError(f"evaluate.path={self.path} has no rows; give prompts{' with responses' * answered}")
        return found

    def num_new(self, model: Model, longest: int) -> int:
        """Return the longest response of the model in tokens; 0 if none is needed.

        Args:
            model: the model.
            longest: tokens of the longest given response.
        """
        return self.max_new_tokens or min(longest, model.max_tokens // 2)


def _labels_of(found: Sequence[AnsweredRow]) -> list[str] | None:
    """Return the task label of each row, or None unless every row has one."""
    labels = [row.task for _, row, _ in found if row.task is not None]
    if 0 < len(labels) < len(found):
        missing = len(found) - len(labels)
        log.warning("%s of %d held-out rows: no task label, so there is no mean over tasks", missing, len(found))
    return labels if len(labels) == len(found) else None
