"""Pools that come from spreadsheets: endings, separators, rows of empty cells and rows without a prompt."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aliquot.pools.cleaning import Cleaning
from aliquot.pools.prepare import load_pool, prepare
from aliquot.pools.spec import CsvPool, JsonlPool, ParquetPool

ROWS = 'id,prompt\r\na,"one, or\r\ntwo"\r\nb,three\r\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", ROWS),
        ("A.CSV", ROWS),
        ("a.csv", "sep=,\r\n" + ROWS),
        ("a.csv", 'sep=;\r\nid;prompt\r\na;"one, or\r\ntwo"\r\nb;three\r\n'),
        ("a.csv", '"sep=|"\r\nid|prompt\r\na|"one, or\r\ntwo"\r\nb|three\r\n'),
        ("a.csv", 'sep=\t\r\nid\tprompt\r\na\t"one, or\r\ntwo"\r\nb\tthree\r\n'),
        ("A.TSV", ROWS.replace(", ", "~").replace(",", "\t").replace("~", ", ")),
        ("a.csv", 'id;prompt;"task, or topic"\r\na;"one, or\r\ntwo";\r\nb;three;\r\n'),
        ("a.csv", ROWS.replace(", ", "~").replace(",", "\t").replace("~", ", ")),
        ("a.csv", ROWS.replace(", ", "~").replace(",", "|").replace("~", ", ")),
        ("a.csv", ",\r\n \r\n" + ROWS),
        ("a.csv", 'id,prompt,"a;b"\r\na,"one, or\r\ntwo",\r\nb,three,\r\n'),
        ("a.csv", "id,prompt\r\n,\r\n" + ROWS[11:] + ",\r\n ,\r\n"),
    ],
)
def test_whatever_parts_the_cells_the_pool_is_the_same(tmp_path, name, text):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    for path in (tmp_path, tmp_path / name):
        pool = load_pool(CsvPool(str(path)))
        assert [list(pool.ids), list(pool.prompts)] == [["a", "b"], ["one, or\r\ntwo", "three"]]


@pytest.mark.parametrize(
    ("kind", "text"), [(CsvPool, "id,prompt\ra,one\rb,two"), (JsonlPool, '{"prompt": "one"}\r' * 2)]
)
def test_lines_that_end_as_on_old_macs_are_lines(tmp_path, kind, text):
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert next(iter(load_pool(kind(str(tmp_path / "a.txt"))).prompts)) == "one"
    (tmp_path / "a.txt").write_bytes(text.encode() + b"\r\xff\r")
    with pytest.raises(ValueError, match=r"a\.txt:4: the line is not UTF-8"):
        load_pool(kind(str(tmp_path / "a.txt")))


def test_files_that_programs_leave_beside_others_are_passed_over(tmp_path):
    (tmp_path / "a.csv").write_text(ROWS)
    for name in ("Thumbs.db", "desktop.ini", "~$a.csv", ".~lock.a.csv#", "._a.csv"):
        (tmp_path / name).write_bytes(b"\x00\xff")
    for path in (tmp_path, tmp_path / "*"):
        assert list(load_pool(CsvPool(str(path))).ids) == ["a", "b"]


def test_rows_of_empty_cells_are_left_out_and_counted(tmp_path):
    (tmp_path / "a.csv").write_text("id,prompt,response\n,,\na,one,x\n , ,\n,,\n")
    spec = CsvPool(str(tmp_path / "a.csv"))
    prepare(spec, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["rows"], report["prompts"], report["dropped"]) == (4, 1, {"blank": 3})
    spec.check_responses()
    assert spec.read_responses(["a"]) == {"a": "x"}


EMPTY = [{"id": i, "prompt": p, "response": "x"} for i, p in (("a", "one"), ("b", None), ("c", "two"), ("d", " "))]


def empty(folder, form):
    path = folder / f"a.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in EMPTY))
        return JsonlPool, path
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(EMPTY), path)
        return ParquetPool, path
    path.write_text('id,prompt,response\na,"one\n",x\nb,,x\nc,two,x\nd, ,x\n')
    return CsvPool, path


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_rows_without_a_prompt_are_refused_and_all_listed_or_dropped_if_asked(tmp_path, form):
    kind, path = empty(tmp_path, form)
    lines = (4, 6) if form == "csv" else (2, 4)
    sheet_rows = ("3", "5") if form == "csv" else ("", "")
    found = rf"a\.{form}:{lines[0]}: .*\(and 1 more row has no prompt\), or set pool\.clean\.empty=drop; .*problems"
    with pytest.raises(ValueError, match=found):
        prepare(kind(str(path)), tmp_path)
    with open(tmp_path / "problems.csv", newline="") as file:
        listed = [(row["line"], row["sheet_row"], row["id"]) for row in csv.DictReader(file)]
    assert listed == [(str(n), s, i) for n, s, i in zip(lines, sheet_rows, "bd", strict=True)]
    spec = kind(str(path), clean=Cleaning(empty="drop"))
    prepare(spec, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["dropped"] == {"empty": 2}
    dropped = [json.loads(line)["id"] for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert dropped == ["b", "d"]
    assert set(spec.read_responses(["a", "c"])) == {"a", "c"}


def test_the_key_knows_what_becomes_of_rows_without_a_prompt():
    assert Cleaning().identity() == Cleaning(empty="refuse").identity() != Cleaning(empty="drop").identity()
    with pytest.raises(ValueError, match=r"pool\.clean\.empty=skip is neither refuse nor drop"):
        Cleaning(empty="skip")
