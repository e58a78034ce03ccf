"""Pools of prompts: how one is named in a config, read, and checked line by line.

Reading prompts and reading responses are two functions on purpose. `load` cannot return a response; only an
annotator calls `read_responses`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from aliquot.sources import content_hash, locate
from aliquot.types import Pool


class PoolSpec(Protocol):
    """Names a pool. Cheap to build, and loaded only when its prompts are needed."""

    @property
    def name(self) -> str: ...
    def identity(self) -> dict[str, object]: ...
    def load(self) -> Pool: ...
    def check_responses(self) -> None: ...
    def read_responses(self, ids: Collection[str]) -> dict[str, str]: ...


@dataclass(frozen=True)
class JsonlPool:
    """Reads a pool from a jsonl file, gzipped or not: one JSON object a line.

    Args:
        path: the file; `pkg://` reaches into an installed package.
        name: how messages call this pool.
        limit: keep the first so many rows; None keeps all.
        prompt: column of the prompt.
        id: column of the id. Rows without it are identified by a hash of their prompt.
        task: column of the task label; a pool counts as labelled where every row has one.
        response: column that only the oracle annotator reads.
    """

    path: str
    name: str = "jsonl"
    limit: int | None = None
    prompt: str = "prompt"
    id: str = "id"
    task: str = "task"
    response: str = "response"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"pool.limit={self.limit} leaves no prompts; give 1 or more, or null for all")

    def identity(self) -> dict[str, object]:
        """Name the pool by the content of its file and by what is read from it."""
        columns = [self.prompt, self.id, self.task, self.response]
        return {"content": content_hash(self._file()), "limit": self.limit, "columns": columns}

    def load(self) -> Pool:
        """Read the prompts; no response is kept.

        Raises:
            ValueError: no such file, a malformed line, an empty prompt, a duplicate id, or no rows at all.
        """
        lines: dict[str, int] = {}
        prompts: list[str] = []
        tasks: list[str] = []
        for number, row in self._rows():
            prompt = self._text(row, self.prompt, number)
            if not prompt.strip():
                raise ValueError(f"{self._file()}:{number}: the prompt is empty; fill it in or drop the line")
            row_id = self._row_id(row, prompt)
            if row_id in lines:
                raise ValueError(
                    f"{self._file()}:{number}: id '{row_id}' was already used in line {lines[row_id]}; "
                    "give every row its own id, or drop the duplicate"
                )
            lines[row_id] = number
            prompts.append(prompt)
            if row.get(self.task) is not None:
                tasks.append(str(row[self.task]))
        if not prompts:
            raise ValueError(f"{self._file()} holds no prompts; give one JSON object a line")
        return Pool(self.name, list(lines), prompts, tasks if len(tasks) == len(prompts) else None)

    def check_responses(self) -> None:
        """Raise ValueError where the first row has no response; whether the chosen rows have one is seen later."""
        number, row = next(self._rows())
        if not isinstance(row.get(self.response), str):
            raise ValueError(
                f"{self._file()}:{number}: no text in column '{self.response}', so the oracle cannot annotate; "
                "name the column with pool.response, or stop after choosing with until=select"
            )

    def read_responses(self, ids: Collection[str]) -> dict[str, str]:
        """Return the responses the file itself holds for `ids`.

        Raises:
            ValueError: one of those rows has no response.
        """
        wanted = set(ids)
        responses: dict[str, str] = {}
        for number, row in self._rows():
            row_id = self._row_id(row, str(row.get(self.prompt)))
            if row_id in wanted:
                responses[row_id] = self._text(row, self.response, number)
        missing = wanted - set(responses)
        assert not missing, f"{len(missing)} ids left the pool {self.path}"
        return responses

    def _file(self) -> Path:
        path = locate(self.path)
        if not path.is_file():
            raise ValueError(f"pool file {path} does not exist; set pool.path to a .jsonl or .jsonl.gz file")
        return path

    def _rows(self) -> Iterator[tuple[int, dict[str, object]]]:
        """Yield line number and object of the first `limit` rows; blank lines are no rows."""
        path, num_rows = self._file(), 0
        with _open_text(path) as file:
            try:
                for number, line in enumerate(file, start=1):
                    if num_rows == self.limit:
                        return
                    if line.strip():
                        num_rows += 1
                        yield number, _parse(line, path, number)
            except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ValueError(f"{path} is no UTF-8 text ({error}); save it as UTF-8 jsonl or jsonl.gz") from error

    def _row_id(self, row: dict[str, object], prompt: str) -> str:
        given = row.get(self.id)
        return hashlib.sha256(prompt.encode()).hexdigest()[:16] if given is None else str(given)

    def _text(self, row: dict[str, object], column: str, number: int) -> str:
        value = row.get(column)
        if not isinstance(value, str):
            found = f"it is {json.dumps(value)}" if column in row else f"the columns are {', '.join(row)}"
            raise ValueError(f"{self._file()}:{number}: no text in column '{column}': {found}")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError(f"{self._file()}:{number}: column '{column}' holds half a character (a lone surrogate)")
        return value


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8"))
    return open(path, encoding="utf-8")


def _parse(line: str, path: Path, number: int) -> dict[str, object]:
    try:
        row: object = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{number}: not a JSON object: {error}; fix or drop the line") from error
    if not isinstance(row, dict):
        raise ValueError(f'{path}:{number}: found {type(row).__name__}, not an object; write {{"prompt": "..."}}')
    return cast(dict[str, object], row)
