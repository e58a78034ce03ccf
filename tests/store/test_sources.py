"""Where files come from: paths, packages, and content hashes."""

import os
from pathlib import Path

import pytest

import aliquot
from aliquot.store.content import content_hash, locate


def test_paths_and_package_resources_are_found(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert locate("here/file") == tmp_path / "here" / "file"
    assert locate("~/file") == Path.home() / "file"
    assert locate("pkg://aliquot/types.py") == Path(aliquot.__file__).with_name("types.py")
    with pytest.raises(ValueError, match="package 'nowhere' is not installed"):
        locate("pkg://nowhere/file")


def test_a_hash_follows_names_and_contents_only(tmp_path):
    def folder(name, files):
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / name

    one = content_hash(folder("one", {"a": "1", "sub/b": "2"}))
    assert content_hash(folder("two", {"sub/b": "2", "a": "1"})) == one
    assert content_hash(folder("three", {"a": "1", "sub/c": "2"})) != one
    assert content_hash(folder("four", {"a": "1", "sub/b": "3"})) != one
    os.utime(tmp_path / "one" / "a", (0, 0))
    assert content_hash(tmp_path / "one") == one
