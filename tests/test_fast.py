"""`make test-fast` says something about every package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import aliquot

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_fast_tests_have_one_of_every_package():
    (asked,) = re.findall(r'pytest -n auto -m "(.+)"', (ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", "pytest", "--collect-only", "-m", asked, "tests"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tested = set(re.findall(r"^tests/(\w+)/.*::", listed, re.MULTILINE))
    package = Path(aliquot.__file__).parent
    assert tested >= {file.parent.name for file in package.glob("*/__init__.py")}
