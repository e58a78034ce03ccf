"""A running Label Studio server, accessed by the four REST calls that a batch needs.

This does not use label-studio-sdk. The version that matches a current server pins opencv-python-headless < 4.13 and
with it numpy < 2.3, and installs twenty packages. See https://api.labelstud.io.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from httpx2 import Client, Response

TITLE_LENGTHS = range(3, 51)  # characters, as allowed by the server
#: Tasks per request: a cut connection loses at most these, and the next push sends them again.
TASKS_AT_ONCE = 500
_SECONDS_TO_CONNECT, _SECONDS = 10.0, 600.0  # a busy server took 5 ms per task before its export began


@dataclass(frozen=True)
class LabelStudioServer:
    """The project of a batch on a server.

    Args:
        url: of the server.
        key: a personal access token, or a legacy token where the server allows these.
        project: the title of the project.
        interface: the labeling interface for a new project.
        guidelines: the instructions for its annotators.
    """

    url: str
    key: str = field(repr=False)
    project: str
    interface: str
    guidelines: str

    def check(self) -> None:
        with self._client() as client:
            self._find(client)

    def push(self, requests: Mapping[str, str]) -> None:
        with self._client() as client:
            project = self._find(client) or self._create(client)
            there = {task["data"].get("prompt_id") for task in json.loads(self._export(client, project))}
            new = [{"prompt_id": i, "prompt": prompt} for i, prompt in requests.items() if i not in there]
            for start in range(0, len(new), TASKS_AT_ONCE):
                tasks = [{"data": data} for data in new[start : start + TASKS_AT_ONCE]]
                self._call(client, "POST", f"/api/projects/{project}/import", json=tasks)

    def pull(self) -> str | None:
        with self._client() as client:
            project = self._find(client)
            return None if project is None else self._export(client, project)

    def _find(self, client: Client) -> int | None:
        """Return the number of the project, or None if it does not exist.

        Raises:
            ValueError: several projects have the title, its project is about something else, or the title is invalid.
        """
        if len(self.project) not in TITLE_LENGTHS:
            raise ValueError(
                f"the project '{self.project}' has a name of {len(self.project)} characters, and Label Studio takes 3 "
                "to 50; give one with annotator.project"
            )
        found: list[dict[str, Any]] = []
        for page in count(1):
            asked = {"title": self.project, "page": page, "page_size": 100}  # matches titles that contain it
            answer = self._call(client, "GET", "/api/projects", params=asked).json()
            found += [project for project in answer["results"] if project["title"] == self.project]
            if not answer["next"]:
                break
        if len(found) > 1:
            raise ValueError(
                f"annotator.url={self.url}: {len(found)} projects are called '{self.project}'; rename all but one, or "
                "name another with annotator.project"
            )
        if found and not {"response", "skip"} <= found[0]["parsed_label_config"].keys():
            controls = ", ".join(found[0]["parsed_label_config"]) or "nothing"
            raise ValueError(
                f"annotator.url={self.url}: the project '{self.project}' asks for {controls}, not for response and "
                "skip; name another with annotator.project, or give it the labeling interface of the batch directory"
            )
        return found[0]["id"] if found else None

    def _create(self, client: Client) -> int:
        project = {
            "title": self.project,
            "label_config": self.interface,
            "expert_instruction": self.guidelines,
            "show_instruction": True,
            "show_skip_button": False,  # the button does not ask for a reason
        }
        return self._call(client, "POST", "/api/projects", json=project).json()["id"]

    def _export(self, client: Client, project: int) -> str:
        """Return all tasks with their annotations."""
        asked = {"exportType": "JSON", "download_all_tasks": "true", "download_resources": "false"}
        return self._call(client, "GET", f"/api/projects/{project}/export", params=asked).text

    @contextmanager
    def _client(self) -> Generator[Client]:
        """Open a connection that sends the key with every call.

        Raises:
            ValueError: the HTTP client is not installed, or the server refuses the key.
        """
        try:
            from httpx2 import Client, Timeout
        except ImportError as error:
            raise ValueError(
                f"annotator.url={self.url} needs the package httpx2, which is not installed; run: pip install "
                "'aliquot[label-studio]'"
            ) from error

        patience = Timeout(_SECONDS, connect=_SECONDS_TO_CONNECT)
        with Client(base_url=self.url.rstrip("/"), timeout=patience) as client:
            shown = f"Token {self.key}"
            if self.key.count(".") == 2:  # a personal access token is exchanged for a short-lived one
                answer = self._call(client, "POST", "/api/token/refresh/", json={"refresh": self.key})
                shown = f"Bearer {answer.json()['access']}"
            client.headers["Authorization"] = shown
            yield client

    def _call(self, client: Client, method: str, path: str, **given: Any) -> Response:
        """Call the server.

        Raises:
            ValueError: the server cannot be reached, refuses the key, or returns an error.
        """
        from httpx2 import HTTPError, InvalidURL

        try:
            answer = client.request(method, path, **given)
        except (HTTPError, InvalidURL) as error:
            raise ValueError(
                f"annotator.url={self.url}: no answer from Label Studio ({error or type(error).__name__}); start it, "
                "or correct the url; without annotator.url the batch goes by files"
            ) from error
        if answer.status_code in (401, 403):
            raise ValueError(
                f"annotator.url={self.url}: Label Studio refuses the key in LABEL_STUDIO_API_KEY "
                f"({answer.status_code}); copy a personal access token from Account & Settings (a legacy token works "
                "where these are enabled)"
            )
        if not answer.is_success or "html" in answer.headers.get("content-type", ""):
            raise ValueError(
                f"annotator.url={self.url}: {method} {path} returned {answer.status_code} {answer.text[:200]!r}, which "
                "is not an answer from Label Studio; check the url, and the server's log"
            )
        return answer
