"""One word, one thing: a reader who meets the name of a class knows which one it is."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import aliquot


@pytest.mark.slow
def test_no_two_public_classes_have_the_same_name():
    package = Path(aliquot.__file__).parent
    places = defaultdict(list)
    for file in package.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(file.relative_to(package)))
    assert len(places) > 100
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
