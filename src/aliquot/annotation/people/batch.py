"""The files of a batch that people may fill in directly: aliquot adds rows to them, and never removes any.

If a batch is a directory (see `people`), its files are

    to_annotate.jsonl           id, prompt and an empty response for every prompt ever asked in it
    to_annotate_second.jsonl    the same, for the prompts that a second annotator should also answer
    adjudicate.csv              prompts on which two annotators differ: both responses, and an empty final one
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from aliquot.annotation.returned_rows import Problem, ReturnedRow
from aliquot.annotation.task_tables import write_table
from aliquot.pools.files import read_csv
from aliquot.pools.jsonl import read_jsonl
from aliquot.pools.record import Record
from aliquot.store.store import write_atomic

REQUESTS, REQUESTS_SECOND, ADJUDICATE = "to_annotate.jsonl", "to_annotate_second.jsonl", "adjudicate.csv"
#: The name of the second annotator, for rows that do not give one.
SECOND = "second"


def read_requests(folder: Path) -> dict[str, str]:
    """Return id -> prompt for every prompt asked in a batch.

    Raises:
        ValueError: somebody has changed the file so that it cannot be read.
    """
    return {str(row.fields["id"]): str(row.fields["prompt"]) for row in _rows(folder / REQUESTS)}


def add_requests(file: Path, requests: Mapping[str, str]) -> None:
    """Request responses: add rows, and leave existing ones as they are, including anything typed into them."""
    there = {row.fields["id"] for row in _rows(file)}
    new = ((row_id, prompt) for row_id, prompt in requests.items() if row_id not in there)
    rows = [{"id": row_id, "prompt": prompt, "response": ""} for row_id, prompt in new]
    if rows or not file.exists():
        text = file.read_bytes().decode() if file.exists() else ""
        end = "\n" if text and not text.endswith("\n") else ""
        write_atomic(file, text + end + "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def typed_in(file: Path, by: str | None) -> Iterator[ReturnedRow | Problem]:
    """Yield the responses that were typed into a file of requests; a row without an annotator is attributed to `by`."""
    for row in _rows(file):
        row_id, response, who = (row.fields.get(column) for column in ("id", "response", "annotator"))
        if response is not None and not isinstance(response, str):
            yield Problem(row.place, str(row_id), f"response is {type(response).__name__}, not text; write text")
        elif response and response.strip():
            yield ReturnedRow(row.place, str(row_id), response, str(row.fields["prompt"]), str(who) if who else by)


def _rows(file: Path) -> tuple[Record, ...]:
    if not file.exists():
        return ()
    stat = file.stat()
    return _read(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(file: Path, size: int, modified_ns: int) -> tuple[Record, ...]:
    """Read a file of requests; cached for as long as its size and time stay the same."""
    rows = tuple(read_jsonl(file))
    for row in rows:
        if not all(isinstance(row.fields.get(column), str) for column in ("id", "prompt")):
            raise ValueError(
                f"{row.place}: no text in 'id' and 'prompt', as aliquot wrote them; correct the line, or remove it: "
                "what is still needed is asked again"
            )
    return rows


def read_decisions(folder: Path) -> Iterator[ReturnedRow | Problem]:
    """Yield the decisions on prompts on which annotators differed."""
    file = folder / ADJUDICATE
    try:
        for row in _decisions(file):
            row_id, response = (row.fields.get(name) for name in ("id", "response"))
            yield ReturnedRow(row.place, str(row_id or ""), None if response is None else str(response))
    except ValueError as error:
        yield Problem.of(file, error)


def add_disagreements(folder: Path, open_ones: Mapping[str, Mapping[str, str]]) -> None:
    """Request decisions: existing ones stay, including those on other prompts.

    Args:
        folder: of the batch.
        open_ones: id -> prompt, first and second response.
    """
    file = folder / ADJUDICATE
    try:
        rows = _decisions(file)
    except ValueError:  # `read_decisions` reports it
        return
    head = list(dict.fromkeys([*(rows[0].columns if rows else ()), "id", "prompt", "first", "second", "response"]))
    before = {str(row.fields.get("id")): row.fields for row in rows}
    table = {row_id: {**fields, **open_ones.get(row_id, {})} for row_id, fields in before.items()}
    table |= {row_id: {"id": row_id, **said} for row_id, said in open_ones.items() if row_id not in before}
    if table != before:
        write_table(file, head, [[str(row.get(name) or "") for name in head] for row in table.values()])


def _decisions(file: Path) -> list[Record]:
    rows = list(read_csv(file)) if file.exists() else []
    if rows and not {"id", "response"} <= set(rows[0].columns):
        raise ValueError(f"{file}:1: no columns 'id' and 'response'; put them back, or remove the file")
    return rows
