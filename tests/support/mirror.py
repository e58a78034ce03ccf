"""W&B runs that were made offline, read back as W&B's own reader sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mirror:
    """What an offline run holds.

    Args:
        head: id, project, group, name and tags.
        config: as the run was started with.
        history: the rows logged, without W&B's own columns.
        summary: the last value of each name; a table has names such as `selection._type`.
        axes: pattern of metrics -> the metric on their x axis.
        artifacts: with their manifests.
    """

    head: dict[str, Any]
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    axes: dict[str, str]
    artifacts: list[dict[str, Any]]


def read_back(directory: Path) -> Mirror:
    """Read the only W&B run below the directory of a run."""
    (folder,) = directory.glob("wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]

    def of(kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in records if record["type"] == kind]

    (head,) = of("run")
    summary: dict[str, Any] = {}
    for record in of("summary"):
        summary |= record["update"]
    rows = [{name: v for name, v in row["item"].items() if not name.startswith("_")} for row in of("history")]
    axes = {m.get("glob_name") or m["name"]: m["step_metric"] for m in of("metric") if "step_metric" in m}
    return Mirror(head, head["config"]["update"], rows, summary, axes, of("artifact"))
