"""What the README shows works as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from aliquot.config.schema import ROOT


@pytest.mark.slow
def test_the_strategy_of_the_readme_can_be_pasted_and_picks_the_shortest_prompts(tmp_path):
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("### Your strategy")[2].partition("\n## ")[0]
    blocks = re.findall(r"`([^`\n]+)`:\n\n```\w+\n(.*?)```", section, re.DOTALL)
    assert [name for name, _ in blocks] == [
        "src/aliquot/selection/strategies/shortest.py",
        "conf/strategy/shortest.yaml",
    ]
    for part in ("src", "conf", "experiments", "sweeps"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", tmp_path)
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    command = re.findall(r"`python (run.py strategy=[^`]+)`", section)[0].split()
    words = [sys.executable, *command, "pool.limit=3000", "until=select", "tracker=none"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (chosen,) = tmp_path.glob("outputs/runs/*/selected.jsonl")
    lengths = [len(json.loads(line)["prompt"]) for line in chosen.read_text().splitlines()]
    assert len(lengths) == 1000
    assert lengths == sorted(lengths)
