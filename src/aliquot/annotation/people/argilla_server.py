"""A running Argilla server, accessed by its SDK."""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argilla as rg

#: The question to annotators about each prompt.
QUESTIONS = ("response", "skip", "comment")
_RECORDS_AT_ONCE = 500


@dataclass(frozen=True)
class ArgillaServer:
    """The dataset of a batch on a server.

    Args:
        url: of the server.
        key: of a user who may make datasets: an owner, or an admin of the workspace.
        dataset: its name.
        workspace: that contains the dataset, or None for the first.
        files: settings and records, as the SDK reads them.
    """

    url: str
    key: str = field(repr=False)
    dataset: str
    workspace: str | None
    files: Path

    def check(self) -> None:
        with self._client() as client:
            self._find(client)

    def push(self, requests: Mapping[str, str]) -> None:
        with self._client() as client:
            import argilla as rg

            dataset = self._find(client) or rg.Dataset.from_disk(
                str(self.files), name=self.dataset, workspace=self._workspace(client), client=client, with_records=False
            )
            there = {row["id"] for row in _rows(client, dataset)}
            new = [rg.Record(id=i, fields={"prompt": prompt}) for i, prompt in requests.items() if i not in there]
            if new:
                dataset.records.log(new, batch_size=min(len(new), _RECORDS_AT_ONCE))

    def pull(self) -> str | None:
        with self._client() as client:
            dataset = self._find(client)
            return None if dataset is None else json.dumps(list(_rows(client, dataset)), ensure_ascii=False)

    def _find(self, client: rg.Argilla) -> rg.Dataset | None:
        """Return the dataset, or None if it does not exist.

        Raises:
            ValueError: the dataset of that name has other questions.
        """
        dataset = client.datasets(self.dataset, workspace=self._workspace(client))
        if dataset is None:
            return None
        questions = [question.name for question in dataset.settings.questions]
        if not {"response", "skip"} <= set(questions):
            raise ValueError(
                f"annotator.url={self.url}: the dataset '{self.dataset}' asks for {', '.join(questions)}, not for "
                "response and skip; name another with annotator.project"
            )
        return dataset

    def _workspace(self, client: rg.Argilla) -> str:
        names = [workspace.name for workspace in client.workspaces if workspace.name]
        if not names or self.workspace not in (None, *names):
            raise ValueError(
                f"annotator.workspace={self.workspace}: {self.url} has the workspaces {', '.join(names) or 'none'}; "
                "name one of them, or make one"
            )
        return self.workspace or names[0]

    @contextmanager
    def _client(self) -> Generator[rg.Argilla]:
        """Connect, and turn any failure into one message.

        Raises:
            ValueError: the SDK is not installed, or the server cannot be reached, refuses the key, or returns an error.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated pydantic; datasets that do not exist yet
                import argilla as rg
                from argilla._exceptions import ArgillaCredentialsError, ArgillaError, ForbiddenError
                from httpx import HTTPError, InvalidURL
        except ImportError as error:
            raise ValueError(
                f"annotator.url={self.url} needs the package argilla, which is not installed ({error}); run: pip "
                "install 'aliquot[argilla]'"
            ) from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                client = rg.Argilla(api_url=self.url, api_key=self.key, retries=1)
                with closing(client.http_client):
                    yield client
        except (ArgillaCredentialsError, ForbiddenError) as error:
            raise ValueError(
                f"annotator.url={self.url}: Argilla refuses the key in ARGILLA_API_KEY ({_first_line(error)}); take "
                "that of an owner, or of an admin of the workspace, from My settings"
            ) from error
        except (HTTPError, InvalidURL) as error:
            raise ValueError(
                f"annotator.url={self.url}: no answer from Argilla ({error or type(error).__name__}); start it, or "
                "correct the url; without annotator.url the batch goes by files"
            ) from error
        except (ArgillaError, json.JSONDecodeError) as error:
            raise ValueError(
                f"annotator.url={self.url}: no answer that could be used ({_first_line(error)}); check the url, and "
                "Argilla's log"
            ) from error


def _rows(client: rg.Argilla, dataset: rg.Dataset) -> Generator[dict[str, Any]]:
    """Yield the records of a dataset as flat records.

    This does not use `dataset.records`, which loses records that were discarded without an answer.
    """
    assert dataset.id is not None
    for start in range(0, 1 << 62, _RECORDS_AT_ONCE):
        records = client.api.records.list(dataset.id, offset=start, limit=_RECORDS_AT_ONCE, with_suggestions=False)
        for record in records:
            row: dict[str, Any] = {"id": str(record.external_id), **(record.fields or {})}
            answers = [answer for answer in record.responses or [] if answer.user_id]
            for name in QUESTIONS:
                row[f"{name}.responses"] = [(answer.values or {}).get(name, {}).get("value") for answer in answers]
                row[f"{name}.responses.users"] = [str(answer.user_id) for answer in answers]
                row[f"{name}.responses.status"] = [answer.status.value for answer in answers]
            yield row
        if len(records) < _RECORDS_AT_ONCE:
            return


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
