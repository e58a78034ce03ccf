"""Annotation by people in Argilla: its settings and records, and how its exports are read.

The directory `argilla` of a batch can be read by `rg.Dataset.from_disk`. Exports are read as flat records: the rows
that `dataset.records.to_datasets()` writes as jsonl or parquet (as does the export to the hub) and that
`to_list(flatten=True)` gives for JSON. Flat records distinguish drafts and discarded answers from submitted ones. The
nested records of `to_disk` do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from aliquot.annotation.people.argilla_server import QUESTIONS, ArgillaServer
from aliquot.annotation.people.labeling_tool import GUIDELINES, SKIP_REASONS, Tool, api_key, read_rows
from aliquot.annotation.returned_rows import Problem, ReturnedRow, returned_rows
from aliquot.pools.files import format_of
from aliquot.store.content import locate
from aliquot.store.store import write_atomic


@dataclass(frozen=True, kw_only=True)
class Argilla(Tool):
    """Writes settings and records, and reads flat records.

    Args:
        workspace: of the dataset on the server; None uses the server's first.
    """

    imported: ClassVar[str] = "argilla"
    pulled: ClassVar[str] = "argilla_server.json"

    workspace: str | None = None

    @property
    def name(self) -> str:
        return "people (Argilla)"

    def connect(self, url: str) -> ArgillaServer:
        key = api_key("ARGILLA_API_KEY", url, "My settings in Argilla")
        return ArgillaServer(url, key, self.project_name(), self.workspace, locate(self.folder) / self.imported)

    def write(self, requests: Mapping[str, str], folder: Path) -> None:
        files = folder / self.imported
        records = [{"id": row_id, "fields": {"prompt": prompt}} for row_id, prompt in requests.items()]
        write_atomic(files / ".argilla" / "dataset.json", json.dumps({"name": self.project_name()}))
        write_atomic(files / ".argilla" / "settings.json", json.dumps(settings(), indent=1))
        write_atomic(files / "records.json", json.dumps(records, ensure_ascii=False, indent=1))

    def read_file(self, file: Path, by: str | None) -> Iterator[ReturnedRow | Problem]:
        if file.suffix.lower() == ".json":
            for number, row in enumerate(read_rows(file, "Argilla"), start=1):
                yield from _read(row, f"{file}, record {number}")
        elif (kind := format_of(file)) in ("jsonl", "parquet"):
            yield from returned_rows(kind, file, lambda row: _read(row.fields, row.place))
        else:
            raise ValueError(
                f"{file}: not a readable export of Argilla; give back what dataset.records.to_datasets() writes "
                "as jsonl or parquet"
            )


def settings() -> dict[str, Any]:
    """Return the settings of the dataset: the prompt, a question for the response, and reasons to discard it."""
    text = {"type": "text", "use_markdown": False}
    reasons = [{"value": reason, "text": reason} for reason in SKIP_REASONS]
    choice = {"type": "label_selection", "options": reasons, "visible_options": len(reasons)}
    titles = {
        "response": "Response",
        "skip": "Or discard it, because",
        "comment": "What else there is to say about that",
    }
    return {
        "guidelines": f"{GUIDELINES} Then press Discard.",
        "fields": [{"name": "prompt", "title": "Prompt", "required": True, "settings": text}],
        "questions": [
            {
                "name": name,
                "title": titles[name],
                "required": name == "response",  # at least one question must be required; Discard ignores it
                "settings": choice if name == "skip" else text,
            }
            for name in QUESTIONS
        ],
        "vectors": [],
        "metadata": [],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }


def _read(row: Mapping[str, object], place: str) -> Iterator[ReturnedRow | Problem]:
    """Yield the answers of a row, or the problem with it, so that other rows can still be read."""
    try:
        yield from _answers(row, place)
    except ValueError as error:
        yield Problem(place, str(row.get("id") or ""), str(error))


def _answers(row: Mapping[str, object], place: str) -> Iterator[ReturnedRow]:
    """Yield what each annotator submitted or discarded.

    Raises:
        ValueError: the row is not a flat record, or its columns do not belong together.
    """
    if "responses" in row:
        raise ValueError(
            "a nested record does not tell drafts from submitted responses; give back what "
            "dataset.records.to_datasets() writes as jsonl or parquet, or dataset.records.to_list(flatten=True) as JSON"
        )
    if not any(row.get(f"{name}.responses") for name in QUESTIONS) and (other := _not_asked(row)):
        raise ValueError(
            f"responses to the question 'response' go in column 'response.responses', but the row has only {other}; "
            "name the question 'response', and give back what dataset.records.to_datasets() of Argilla 2 writes"
        )
    given: dict[str, dict[str, Any]] = {}
    prompt = _text(row.get("prompt"), "prompt")
    for name in QUESTIONS:
        parts = [row.get(f"{name}.responses{part}") or [] for part in ("", ".users", ".status")]
        if (
            not all(isinstance(part, list) for part in parts)
            or len({len(cast(list[object], part)) for part in parts}) > 1
        ):
            raise ValueError(f"{name}.responses, its .users and its .status are not lists of the same length")
        for value, user, status in zip(*cast(list[list[Any]], parts), strict=True):
            given.setdefault(user, {"status": status})[name] = _text(value, f"{name}.responses")
    if not given and row.get("response.suggestion"):
        yield ReturnedRow(place, str(row.get("id") or ""), None, prompt, suggested=True)
    for user, values in given.items():
        if values["status"] not in ("submitted", "discarded"):
            continue
        discarded = values["status"] == "discarded"
        reasons = [reason for reason in (values.get("skip"), values.get("comment")) if reason]
        yield ReturnedRow(
            place,
            id=str(row.get("id") or ""),
            response=None if discarded else values.get("response"),
            prompt=prompt,
            annotator=user,
            skipped=": ".join(reasons) or "discarded" if discarded or values.get("skip") else None,
        )


def _text(value: object, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__}, not text; write text")
    return value


def _not_asked(row: Mapping[str, object]) -> str:
    """Name the columns that hold responses to other questions; empty if nothing was given."""
    return ", ".join(
        f"'{name}'" for name, value in row.items() if value and (name.endswith(".responses") or _is_answers(value))
    )


def _is_answers(value: object) -> bool:
    """Tell whether a value is a response of Argilla 1: a list of objects with a value."""
    return isinstance(value, list) and any(isinstance(part, dict) and "value" in part for part in value)  # pyright: ignore[reportUnknownVariableType]
