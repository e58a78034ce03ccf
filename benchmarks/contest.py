"""What the contests share: contestants in processes of their own, and the rows of measured.csv."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = (
    "job",
    "contestant",
    "n",
    "k",
    "d",
    "gamma",
    "round",
    "wall_s",
    "cpu_s",
    "peak_gb",
    "f",
    "recovered",
    "machine",
)


def run_apart(*arguments: str, environment: Mapping[str, str] | None = None, quiet: bool = False) -> dict[str, float]:
    """Run this script with other arguments in a process of its own; return the figures that its last line holds."""
    output = subprocess.run(
        [sys.executable, sys.argv[0], *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        env=environment,
    ).stdout
    return json.loads(output.splitlines()[-1])


def machine() -> str:
    """Name the processor and how many of its cores may be used."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def append(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = COLUMNS) -> None:
    """Add rows to a csv, under its header; what they lack stays empty, what has no column is left out."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)
