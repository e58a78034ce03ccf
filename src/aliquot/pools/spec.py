"""Pools of prompts: how a config names one, and what identifies it. The code that reads a pool is in `aliquot.pools`.

Prompts and responses are deliberately read by two methods. `rows` cannot return a response; only an annotator calls
`read_responses`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from aliquot.pools.cleaning import Cleaning
from aliquot.pools.columns import FIRST, Columns, check_conversations
from aliquot.pools.files import READERS, find_files, read_as
from aliquot.pools.reading_notes import Reading
from aliquot.pools.record import Record
from aliquot.pools.rows import Row, no_answer, response_text, usable_row
from aliquot.store.content import content_hash, locate


@dataclass(frozen=True, kw_only=True)
class PoolSpec:
    """Names a pool. Cheap to build; it is read when its prompts are needed.

    A format is a subclass with three methods: `content`, `place` and `records`.

    Args:
        name: the name of this pool in messages.
        prompt: column of the prompt; `meta.text` reaches into nested objects.
        context: column of further text, put below the prompt if there is any.
        id: column of the id. Rows without one are identified by a hash of their prompt.
        task: column of the task label; a pool counts as labeled if every row has one.
        response: column that only the oracle annotator reads.
        messages: column of a list of {role, content}, which replaces prompt and response: the first user turn is the
            prompt (below a system turn, if one comes before it), and the assistant's next turn is the response.
        turn: which user turn is answered: `first`, or `last`, and then the turns before it are part of the prompt.
        limit: read only the first N rows; None reads all.
        sample: draw N of the prompts that cleaning leaves; None keeps all.
        sample_seed: seed of that draw.
        clean: which rows to drop.
    """

    setting: ClassVar[str] = "pool"

    name: str = "pool"
    prompt: str = "prompt"
    context: str | None = None
    id: str | None = "id"
    task: str | None = "task"
    response: str = "response"
    messages: str | None = None
    turn: str = FIRST
    limit: int | None = None
    sample: int | None = None
    sample_seed: int = 0
    clean: Cleaning = field(default_factory=Cleaning)

    def __post_init__(self) -> None:
        for field_name in ("limit", "sample"):
            value = getattr(self, field_name)
            if value is not None and value < 1:
                setting = f"{self.setting}.{field_name}={value}"
                raise ValueError(f"{setting} leaves no prompts; give 1 or more, or null for all")
        replaced = {
            "prompt": (self.prompt, "prompt"),
            "context": (self.context, None),
            "response": (self.response, "response"),
        }
        check_conversations(self.turn, self.messages, replaced, self.setting)

    @property
    def columns(self) -> Columns:
        """The columns, by their role."""
        return Columns(self.prompt, self.context, self.id, self.task, self.response, self.messages, self.turn)

    def content(self) -> str:
        """Return what identifies the rows of the source, independent of its location."""
        raise NotImplementedError

    def place(self) -> str:
        """Return the name of the source in messages."""
        raise NotImplementedError

    def records(self, columns: Collection[str]) -> Iterator[Record]:
        """Yield the rows of the source in order, each with at least the requested columns."""
        raise NotImplementedError

    def identity(self) -> dict[str, object]:
        """Name the pool by the content of its source and by which parts are read and kept."""
        drawn = None if self.sample is None else {"sample": self.sample, "seed": self.sample_seed}
        kept = {"limit": self.limit, "clean": self.clean, "drawn": drawn}
        return {"content": self.content(), "columns": self.columns, **kept}

    def bare(self) -> PoolSpec:
        """Return the spec without the fields that select rows: the responses to given ids do not depend on them."""
        return replace(self, task=None, limit=None, sample=None, sample_seed=0, clean=Cleaning())

    def rows(self, reading: Reading | None = None) -> Iterator[Row]:
        """Yield the first `limit` rows as prompts, without responses; `reading` takes notes about the source.

        Raises:
            ValueError: the source cannot be read, a row is bad, or no row has a named column.
        """
        columns, reading = self.columns, reading or Reading()
        records = itertools.islice(self.records(columns.for_prompts()), self.limit)
        for record in reading.watch(records, columns, self.place()):
            row = reading.row(record, columns)
            if row is not None:
                yield row
        reading.settle(drop=self.clean.empty == "drop")

    def check_responses(self, to_choose: bool = False) -> None:
        """Raise ValueError if the first row has no response; the other rows are checked when they are needed."""
        columns = self.columns
        asked = (record for record in self.records(columns.for_responses()) if usable_row(record, columns))
        record = next(asked, None)  # a pool without rows is refused when it is read
        if record is not None and response_text(record, columns) is None:
            raise self._no_response(record, to_choose)

    def read_responses(self, ids: Collection[str], to_choose: bool = False) -> dict[str, str]:
        """Return the responses that the source itself holds for `ids`; if rows share an id, that of the first.

        Args:
            ids: of rows.
            to_choose: whether an upper reference reads them, not an oracle; for messages.

        Raises:
            ValueError: one of these rows has no response.
        """
        missing, columns = set(ids), self.columns
        responses: dict[str, str] = {}
        for record in itertools.islice(self.records(columns.for_responses()), self.limit):
            if not missing:
                break
            row = usable_row(record, columns)
            wanted = missing.intersection(row.names) if row else None
            if wanted:
                response = response_text(record, columns)
                if response is None:
                    raise self._no_response(record, to_choose)
                responses |= dict.fromkeys(wanted, response)
                missing -= wanted
        assert not missing, f"{len(missing)} ids left the pool {self.place()}"
        return responses

    def _no_response(self, record: Record, to_choose: bool = False) -> ValueError:
        another = "" if self.messages else "name another column with pool.response, "
        if to_choose:
            return ValueError(
                f"{record.place}: {no_answer(record, self.columns)}; a strategy that reads responses needs one in "
                f"every row: fill it in, drop the row, {another}or choose a strategy that reads prompts only"
            )
        return ValueError(
            f"{record.place}: {no_answer(record, self.columns)}; so the oracle cannot annotate: say who does "
            "(annotator=file, label_studio, argilla or teacher; what was scored and chosen is kept), fill it in, "
            f"{another}or stop after choosing with until=select"
        )


@dataclass(frozen=True)
class _FilePool(PoolSpec):
    """Reads a pool from files of one format.

    Args:
        path: a file, a directory of files or a glob; `pkg://` reaches into an installed package.
    """

    path: str

    kind: ClassVar[str]

    def content(self) -> str:
        text = " ".join(f"{read_as(file, self.kind)} {content_hash(file)}" for file in self._files())
        return hashlib.sha256(text.encode()).hexdigest()

    def place(self) -> str:
        files = self._files()
        return str(files[0]) if len(files) == 1 else f"pool.path={self.path} ({len(files)} files)"

    def records(self, columns: Collection[str]) -> Iterator[Record]:
        for file in self._files():
            yield from READERS[self.kind](file, columns)

    def _files(self) -> list[Path]:
        return find_files(self.path, self.kind)


@dataclass(frozen=True)
class JsonlPool(_FilePool):
    """Reads a pool from jsonl files, compressed or not: one JSON object per line, or one JSON array."""

    kind: ClassVar[str] = "jsonl"


@dataclass(frozen=True)
class CsvPool(_FilePool):
    """Reads a pool from csv files with a header, compressed or not; .tsv uses tabs. An empty cell counts as missing."""

    kind: ClassVar[str] = "csv"


@dataclass(frozen=True)
class ParquetPool(_FilePool):
    """Reads a pool from parquet files, a few thousand rows at a time."""

    kind: ClassVar[str] = "parquet"


@dataclass(frozen=True)
class HubPool(PoolSpec):
    """Reads a pool from a dataset on the Hugging Face hub, at one commit.

    Args:
        path: organization/name, or a directory with the layout of a hub dataset.
        revision: the commit, 40 hexadecimal digits, whose content never changes. None is allowed only for a directory.
        config: the dataset's configuration, if it has several.
        split: the split.
        where: column -> values; rows with other values are not read.
    """

    path: str
    revision: str | None
    config: str | None = None
    split: str = "train"
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.revision is not None and not _is_commit(self.revision):
            raise ValueError(
                f"pool.revision={self.revision} is not a commit; give the 40 hexadecimal digits of one, from "
                f"https://huggingface.co/datasets/{self.path}/commits/main: a branch may change"
            )

    def content(self) -> str:
        folder = self._folder()
        return content_hash(folder) if folder else f"{self.path}@{self.revision}"

    def identity(self) -> dict[str, object]:
        return {**super().identity(), "config": self.config, "split": self.split, "where": self.where}

    def place(self) -> str:
        return f"{self.path}/{self.split}"

    def records(self, columns: Collection[str]) -> Iterator[Record]:
        from aliquot.pools.hub import hub_records, open_dataset

        folder = self._folder()
        repo, revision = (str(folder), None) if folder else (self.path, self.revision)
        return hub_records(open_dataset(repo, self.config, self.split, revision), columns, self.where, self.place())

    def _folder(self) -> Path | None:
        """Return the directory, or None if the path names a dataset on the hub."""
        folder = locate(self.path)
        if folder.is_dir():
            return folder
        if self.revision is None:
            raise ValueError(
                f"pool.path={self.path} is not a directory here; correct it, or give pool.revision, a commit of "
                f"https://huggingface.co/datasets/{self.path}/commits/main"
            )
        return None


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(digit in "0123456789abcdef" for digit in revision)
