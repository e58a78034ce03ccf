"""Pools: what is read, what identifies a row, and what each kind of bad line is told."""

import gzip
import json

import pytest

from aliquot.pool import JsonlPool


def write(path, rows):
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return JsonlPool(str(path))


ROWS = [
    {"id": "a", "prompt": "Add 1 and 2.", "response": "3", "task": "sums"},
    {"id": "b", "prompt": "Name a colour.", "response": "red", "task": "names"},
]


@pytest.mark.parametrize("name", ["pool.jsonl", "pool.jsonl.gz"])
def test_prompts_ids_and_tasks_are_read_from_plain_and_gzipped_files(tmp_path, name):
    pool = write(tmp_path / name, ROWS).load()
    assert list(pool.ids) == ["a", "b"]
    assert list(pool.prompts) == ["Add 1 and 2.", "Name a colour."]
    assert list(pool.tasks) == ["sums", "names"]


def test_a_pool_holds_no_response_anywhere(tmp_path):
    rows = [{**row, "response": "SECRET"} for row in ROWS]
    assert "SECRET" not in repr(write(tmp_path / "pool.jsonl", rows).load())


def test_ids_made_from_prompts_are_stable_when_rows_are_reordered(tmp_path):
    rows = [{"prompt": "one"}, {"prompt": "two"}]
    forward = write(tmp_path / "a.jsonl", rows).load()
    backward = write(tmp_path / "b.jsonl", rows[::-1]).load()
    assert list(forward.ids) == list(backward.ids)[::-1]
    assert forward.tasks is None


def test_identity_follows_content_and_limit_but_not_location(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    one = write(tmp_path / "a.jsonl", ROWS)
    two = write(tmp_path / "elsewhere" / "b.jsonl", ROWS)
    other = write(tmp_path / "c.jsonl", ROWS[:1])
    assert one.identity() == two.identity() != other.identity()
    assert JsonlPool(one.path, limit=1).identity() != one.identity()


def test_limit_keeps_the_first_rows_and_reads_no_further(tmp_path):
    spec = write(tmp_path / "a.jsonl", [*ROWS, "this line is never parsed\n"])
    assert len(JsonlPool(spec.path, limit=2).load()) == 2


def test_responses_come_only_by_id(tmp_path):
    assert write(tmp_path / "a.jsonl", ROWS).read_responses(["b"]) == {"b": "red"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], "{broken\n"], r"a\.jsonl:2: not a JSON object"),
        ([ROWS[0], '"just text"\n'], r"a\.jsonl:2: found str, not an object"),
        ([ROWS[0], "\n", {"id": "b"}], r"a\.jsonl:3: no text in column 'prompt': the columns are id"),
        ([{"prompt": 7}], r"a\.jsonl:1: no text in column 'prompt': it is 7"),
        ([ROWS[0], {"prompt": "  "}], r"a\.jsonl:2: the prompt is empty"),
        ([ROWS[0], ROWS[1], ROWS[0]], r"a\.jsonl:3: id 'a' was already used in line 1"),
        ([{"prompt": "same"}, {"prompt": "same"}], r"a\.jsonl:2: id '\w{16}' was already used in line 1"),
        ([], r"a\.jsonl holds no prompts"),
    ],
)
def test_bad_lines_are_named_by_file_and_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.jsonl", rows).load()


def test_a_missing_file_a_broken_gzip_and_other_encodings_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match=r"does not exist; set pool\.path"):
        JsonlPool(str(tmp_path / "none.jsonl")).load()
    (tmp_path / "a.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(ValueError, match="save it as UTF-8"):
        JsonlPool(str(tmp_path / "a.jsonl.gz")).load()
    (tmp_path / "b.jsonl").write_bytes('{"prompt": "é"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        JsonlPool(str(tmp_path / "b.jsonl")).load()


def test_a_truncated_gzip_and_half_characters_are_told_apart(tmp_path):
    whole = gzip.compress(b"".join(b'{"prompt": "%d"}\n' % i for i in range(1000)), mtime=0)
    for broken in (whole[:-40], whole[:12] + b"\xff" * 50):
        (tmp_path / "a.jsonl.gz").write_bytes(broken)
        with pytest.raises(ValueError, match="save it as UTF-8"):
            JsonlPool(str(tmp_path / "a.jsonl.gz")).load()
    with pytest.raises(ValueError, match=r"a\.jsonl:1: .*lone surrogate"):
        write(tmp_path / "a.jsonl", [{"id": "a", "prompt": "\ud800 x"}]).load()


def test_a_missing_response_is_named_by_line_when_it_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jsonl:1: no text in column 'response'"):
        write(tmp_path / "a.jsonl", [{"id": "a", "prompt": "x"}]).read_responses(["a"])
