"""The figure in docs/ shows what benchmarks/measured.csv holds, and nothing else."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_bar_of_the_figure_says_what_was_measured() -> None:
    spec = importlib.util.spec_from_file_location("figure", ROOT / "benchmarks" / "figure.py")
    assert spec is not None and spec.loader is not None
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    jobs = figure.read(ROOT / "benchmarks" / "measured.csv")
    shown = re.findall(r">([^<>]* s[^<>]* GB)<", (ROOT / "docs" / "benchmarks.svg").read_text())
    expected = [
        figure.label(cpu, contestants["aliquot"][0], peak)
        for contestants in jobs.values()
        for cpu, peak in contestants.values()
    ]
    assert len(expected) >= 8
    assert sorted(shown) == sorted(expected)
