"""Annotation by people in Label Studio: its tasks and labeling interface, and how its exports are read.

A task is {"data": {"prompt_id": ..., "prompt": ...}}. The id is not called `id`, because the smaller exports put the
number of the task there. Three exports are read: JSON, which has complete annotations, and JSON_MIN and CSV, which
leave out annotations that were skipped by the button. Drafts and predictions do not count as responses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast
from xml.sax.saxutils import quoteattr

from aliquot.annotation.people.label_studio_server import LabelStudioServer
from aliquot.annotation.people.labeling_tool import GUIDELINES, SKIP_REASONS, Tool, api_key, read_rows
from aliquot.annotation.returned_rows import Problem, ReturnedRow, returned_rows
from aliquot.pools.files import format_of
from aliquot.store.store import write_atomic

INTERFACE = "label_studio_interface.xml"
#: The controls that annotators fill in, and the export columns that hold something else.
_CONTROLS = ("response", "skip", "comment")
_COLUMNS = ("id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "prompt", "prompt_id")


@dataclass(frozen=True, kw_only=True)
class LabelStudio(Tool):
    """Writes tasks and a labeling interface, and reads the exports JSON, JSON_MIN and CSV."""

    imported: ClassVar[str] = "label_studio_tasks.json"
    pulled: ClassVar[str] = "label_studio_server.json"

    @property
    def name(self) -> str:
        return "people (Label Studio)"

    def connect(self, url: str) -> LabelStudioServer:
        key = api_key("LABEL_STUDIO_API_KEY", url, "Account & Settings in Label Studio")
        return LabelStudioServer(url, key, self.project_name(), interface(), GUIDELINES)

    def write(self, requests: Mapping[str, str], folder: Path) -> None:
        tasks = [{"data": {"prompt_id": row_id, "prompt": prompt}} for row_id, prompt in requests.items()]
        write_atomic(folder / self.imported, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
        write_atomic(folder / INTERFACE, interface())

    def read_file(self, file: Path, by: str | None) -> Iterator[ReturnedRow | Problem]:
        if file.suffix.lower() == ".json":
            for number, row in enumerate(read_rows(file, "Label Studio"), start=1):
                place = f"{file}, task {row.get('id', number)}"
                yield from _read(_from_task if "data" in row else _from_columns, row, place)
        elif format_of(file) == "csv":
            yield from returned_rows("csv", file, lambda row: _read(_from_columns, row.fields, row.place))
        else:
            raise ValueError(
                f"{file}: not a readable export of Label Studio; export the project as JSON, JSON_MIN or CSV"
            )


def interface() -> str:
    """Return the labeling interface: the prompt, a field for the response, and reasons to skip."""
    choices = "\n".join(f"    <Choice value={quoteattr(reason)}/>" for reason in SKIP_REASONS)
    return f"""<View>
  <Header value="Prompt"/>
  <View style="white-space: pre-wrap; margin-bottom: 1em">
    <Text name="prompt" value="$prompt" valueType="text"/>
  </View>
  <Header value="Response"/>
  <TextArea name="response" toName="prompt" rows="10" maxSubmissions="1" editable="true" showSubmitButton="false"
            placeholder="The response to the prompt"/>
  <Header value="Or skip it, because" size="5"/>
  <Choices name="skip" toName="prompt" choice="single" showInline="true">
{choices}
  </Choices>
  <TextArea name="comment" toName="prompt" rows="2" maxSubmissions="1" editable="true" showSubmitButton="false"
            placeholder="What else there is to say about skipping it"/>
</View>
"""


def _read(
    read: Callable[[Mapping[str, Any], str], Iterator[ReturnedRow]], row: Mapping[str, Any], place: str
) -> Iterator[ReturnedRow | Problem]:
    """Yield the annotations of a row, or the problem with it, so that other rows can still be read."""
    try:
        yield from read(row, place)
    except (ValueError, TypeError, AttributeError) as error:
        data = row.get("data", row)
        row_id = data.get("prompt_id") if isinstance(data, dict) else None
        what = str(error) if isinstance(error, ValueError) else f"no task as Label Studio exports it ({error})"
        yield Problem(place, row_id if isinstance(row_id, str) else "", what)


def _from_task(row: Mapping[str, Any], place: str) -> Iterator[ReturnedRow]:
    """Yield the annotations of a task in the export JSON."""
    annotations = row.get("annotations") or ()
    if row.get("predictions") and not annotations:
        yield replace(_answer(row["data"], {}, None, place), suggested=True)
    elif "annotations" not in row:  # the import file, or an export of a version before 1.0
        yield _answer(row["data"], {}, None, place)
    for annotation in annotations:
        given: dict[str, str | None] = {}
        for result in annotation.get("result") or ():
            value = result.get("value", {})
            given[result.get("from_name")] = _text(value)
        _refuse_others(given)
        if annotation.get("was_cancelled"):  # the Skip button, which does not ask for a reason
            given = {"skip": given.get("skip") or "skipped", "comment": given.get("comment")}
        by = annotation.get("completed_by")
        yield _answer(row["data"], given, by.get("email", by.get("id")) if isinstance(by, dict) else by, place)


def _from_columns(row: Mapping[str, Any], place: str) -> Iterator[ReturnedRow]:
    """Read an annotation, or a task without one, as a flat row of JSON_MIN or CSV."""
    if row.get("annotation_id"):
        _refuse_others({name: value for name, value in row.items() if name not in _COLUMNS})
    given = {name: _decoded(row.get(name)) for name in _CONTROLS}
    yield _answer(row, given, row.get("annotator") or None, place)


def _answer(data: Mapping[str, Any], given: Mapping[str, Any], annotator: object, place: str) -> ReturnedRow:
    """Combine the question and the answer.

    Raises:
        ValueError: a field that is text in the interface holds something else.
    """
    row_id: Any = data.get("prompt_id")
    if isinstance(row_id, int) and not isinstance(row_id, bool):  # programs that read the csv make integers of ids
        row_id = str(row_id)
    values: dict[str, Any] = {
        "prompt_id": row_id,
        "prompt": data.get("prompt"),
        **{name: given.get(name) for name in _CONTROLS},
    }
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(
                f"{name} is {type(value).__name__}, not one text; use the labeling interface in {INTERFACE}"
            )
    reasons = [reason for reason in (values.get("skip"), values.get("comment")) if reason]
    return ReturnedRow(
        place,
        id=values["prompt_id"] or "",
        response=values.get("response"),
        prompt=values["prompt"],
        annotator=None if annotator is None else str(annotator),
        skipped=": ".join(reasons) if values.get("skip") else None,
    )


def _refuse_others(given: Mapping[str, object]) -> None:
    """Raise ValueError if controls were filled in, and none of them is known."""
    if given and not any(name in given for name in _CONTROLS):
        raise ValueError(
            f"it has no 'response' or 'skip', only {', '.join(map(repr, given))}; give the controls the names that "
            f"they have in {INTERFACE}, and export once more"
        )


def _decoded(cell: object) -> object:
    """Return the text of a cell; several texts or choices are stored as JSON, {"text": [...]} or a list."""
    value = cell
    if isinstance(cell, str) and cell.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return cell  # a text that merely begins like JSON
    if isinstance(value, dict) and cast(dict[str, object], value).keys() & {"text", "choices"}:
        return _text(cast(dict[str, Any], value))
    if isinstance(value, list) and value and all(isinstance(text, str) for text in cast(list[object], value)):
        return "\n".join(cast(list[str], value))
    return cell


def _text(value: Mapping[str, Any]) -> str:
    """Return the value of a control: a text, texts or choices."""
    texts = value.get("text") or value.get("choices") or ()
    return texts if isinstance(texts, str) else "\n".join(texts)
