"""Annotation by people in a labeling tool, by files moved by hand or on a running server of the tool.

The files are in the tool's own formats. With a server, the same command first pushes the prompts and later pulls the
tool's own export into the batch directory. From there on the two ways are the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from aliquot.annotation.people.people import RETURNED, People, returned_files
from aliquot.pools.files import read_lines
from aliquot.pools.spec import PoolSpec
from aliquot.store.content import locate
from aliquot.store.store import write_atomic

#: Reasons for which an annotator may leave a prompt out; the tool shows them verbatim.
SKIP_REASONS = ("cannot answer", "unclear", "harmful", "other")
#: The instruction shown to annotators above each prompt.
GUIDELINES = (
    "Write the response that a careful expert would give to the prompt. To leave the prompt out, give a reason instead."
)


class Server(Protocol):
    """A running server of the tool, and the project on it that holds the batch."""

    def check(self) -> None:
        """Raise ValueError if the server cannot be reached, refuses the key, or has another project of that name."""
        ...

    def push(self, requests: Mapping[str, str]) -> None:
        """Create the project if it does not exist, and add the prompts that it does not have yet."""
        ...

    def pull(self) -> str | None:
        """Return the tool's own export of the project, or None if the project does not exist yet."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tool(People):
    """The common base of labeling tools.

    Args:
        url: of a running server, or None if files are moved by hand.
        project: its name on the server; None uses the name of the directory.
    """

    #: The file that the tool imports, and the last export pulled from the server: names in the batch directory.
    imported: ClassVar[str]
    pulled: ClassVar[str]

    url: str | None = None
    project: str | None = None

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError if the directory or the server cannot be used."""
        super().check(source)
        if self.url:
            self.connect(self.url).check()

    def export(self, requests: Mapping[str, str], folder: Path) -> None:
        self.write(requests, folder)
        if self.url:
            self.connect(self.url).push(requests)

    def fetch(self) -> None:
        if self.url and (export := self.connect(self.url).pull()) is not None:
            write_atomic(locate(self.folder) / self.pulled, export)

    def files(self, folder: Path) -> list[Path]:
        return [*returned_files(folder), *filter(Path.exists, [folder / self.pulled])]

    def remedy(self, folder: Path) -> str:
        if self.url:
            return f"Answer them in the project '{self.project_name()}' at {self.url}"
        return f"Import {folder / self.imported} (docs/annotation.md), put the export into {folder / RETURNED}"

    def project_name(self) -> str:
        """Return the name of the project on the server."""
        return self.project or locate(self.folder).name

    def connect(self, url: str) -> Server:
        """Return the server, without contacting it yet."""
        raise NotImplementedError

    def write(self, requests: Mapping[str, str], folder: Path) -> None:
        """Write the files that the tool imports."""
        raise NotImplementedError


def read_rows(file: Path, tool: str) -> list[Mapping[str, Any]]:
    """Read a JSON file that a tool exported: a list of objects.

    Raises:
        ValueError: it holds something else.
    """
    try:
        rows: object = json.loads("".join(read_lines(file)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON ({error.msg}); export it from {tool} again") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in cast(list[object], rows)):
        raise ValueError(f"{file}: not a list of objects, as {tool} exports it; export it from {tool} again")
    return cast(list[Mapping[str, Any]], rows)


def api_key(variable: str, url: str, where: str) -> str:
    """Return the key to a server from the environment, the only place where it may be set.

    Args:
        variable: name of the environment variable.
        url: of the server, for the message.
        where: the place where a user finds the key, for the message.

    Raises:
        ValueError: it is not set.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"annotator.url={url} needs a key, and {variable} is not set in the environment; copy the key from {where} "
            f"and run: export {variable}=..."
        )
    return key
