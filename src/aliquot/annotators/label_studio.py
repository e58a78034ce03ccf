"""People who answer in Label Studio: its tasks and labelling interface, and what its exports say.

A task is {"data": {"prompt_id": ..., "prompt": ...}}. The id is not called `id`, because the smaller exports put the
number of the task there. Read are the export JSON, with all there is to an annotation, and JSON_MIN and CSV, which
leave out annotations that were skipped by the button. Drafts and predictions are no responses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from xml.sax.saxutils import quoteattr

from aliquot.annotators.label_studio_server import LabelStudioServer
from aliquot.annotators.returns import Answer
from aliquot.annotators.tool import GUIDELINES, SKIP_REASONS, Tool, api_key, read_rows
from aliquot.pools.files import READERS, format_of
from aliquot.store import write_atomic

INTERFACE = "label_studio_interface.xml"


@dataclass(frozen=True, kw_only=True)
class LabelStudio(Tool):
    """Writes tasks and a labelling interface, and reads the exports JSON, JSON_MIN and CSV."""

    name: ClassVar[str] = "people (Label Studio)"
    imported: ClassVar[str] = "label_studio_tasks.json"
    pulled: ClassVar[str] = "label_studio_server.json"

    def connect(self, url: str) -> LabelStudioServer:
        key = api_key("LABEL_STUDIO_API_KEY", url, "Account & Settings in Label Studio")
        return LabelStudioServer(url, key, self.project_name(), interface(), GUIDELINES)

    def write(self, requests: Mapping[str, str], folder: Path) -> None:
        tasks = [{"data": {"prompt_id": row_id, "prompt": prompt}} for row_id, prompt in requests.items()]
        write_atomic(folder / self.imported, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
        write_atomic(folder / INTERFACE, interface())

    def read_file(self, file: Path, by: str | None) -> Iterator[Answer]:
        if file.suffix == ".json":
            for number, row in enumerate(read_rows(file, "Label Studio"), start=1):
                if "data" in row:
                    yield from _from_task(row, f"{file}, task {row.get('id', number)}")
                else:
                    yield _from_columns(row, f"{file}, task {row.get('id', number)}")
        elif format_of(file) == "csv":
            for record in READERS["csv"](file):
                yield _from_columns(record.fields, record.place)
        else:
            raise ValueError(
                f"{file}: no export of Label Studio that can be read; export the project as JSON, JSON_MIN or CSV"
            )


def interface() -> str:
    """Return the labelling interface: the prompt, a field for the response, and reasons to skip."""
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


def _from_task(row: Mapping[str, Any], place: str) -> Iterator[Answer]:
    """Yield the annotations of a task in the export JSON."""
    for annotation in row.get("annotations") or ():
        given: dict[str, str | None] = {}
        for result in annotation.get("result") or ():
            value = result.get("value", {})
            texts = value.get("text") or value.get("choices") or ()
            given[result.get("from_name")] = texts if isinstance(texts, str) else "\n".join(texts)
        if annotation.get("was_cancelled"):  # the button Skip, which asks for no reason
            given = {"skip": given.get("skip") or "skipped", "comment": given.get("comment")}
        by = annotation.get("completed_by")
        yield _answer(row["data"], given, by.get("email", by.get("id")) if isinstance(by, dict) else by, place)


def _from_columns(row: Mapping[str, Any], place: str) -> Answer:
    """Read an annotation, or a task without one, as JSON_MIN and CSV have it: all in one flat row."""
    given = {name: row.get(name) for name in ("response", "skip", "comment")}
    return _answer(row, given, row.get("annotator") or None, place)


def _answer(data: Mapping[str, Any], given: Mapping[str, Any], annotator: object, place: str) -> Answer:
    """Put together what was asked and what was given.

    Raises:
        ValueError: something other than text is where the interface has a text.
    """
    values = {"prompt_id": data.get("prompt_id"), "prompt": data.get("prompt"), **given}
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(
                f"{place}: {name} is {type(value).__name__}, not one text; use the labelling interface in {INTERFACE}"
            )
    reasons = [reason for reason in (values.get("skip"), values.get("comment")) if reason]
    return Answer(
        place,
        id=values["prompt_id"] or "",
        response=values.get("response"),
        prompt=values["prompt"],
        annotator=None if annotator is None else str(annotator),
        skipped=": ".join(reasons) if values.get("skip") else None,
    )
