"""What a file is, its first bytes say and not its name: read all the same, or named with the remedy."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import pytest

from aliquot.pools.prepare import load_pool
from aliquot.pools.spec import CsvPool, JsonlPool, ParquetPool

TEXT = b'{"id": "a", "prompt": "one"}\n{"id": "b", "prompt": "two"}\n'


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return file.getvalue()


def tarred(data):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.xz", "a.JSONL.GZ", "a"])
def test_a_compressed_file_is_read_under_any_name(tmp_path, compress, name):
    (tmp_path / name).write_bytes(compress(TEXT))
    assert list(load_pool(JsonlPool(str(tmp_path / name))).ids) == ["a", "b"]


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_a_compressed_file_that_is_cut_off_is_named(tmp_path, compress):
    (tmp_path / "a.jsonl").write_bytes(compress(TEXT * 2000)[:-20])
    with pytest.raises(ValueError, match=r"a\.jsonl is damaged or cut off after line \d+"):
        load_pool(JsonlPool(str(tmp_path / "a.jsonl"), id=None))


@pytest.mark.parametrize("kind", [JsonlPool, CsvPool, ParquetPool])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped(a_jsonl=TEXT), r"a zip archive of 1 file \(a\.jsonl\); unpack it"),
        (zipped(xl__workbook_xml=b"x"), r"a spreadsheet \(\.xlsx or \.ods\); save the sheet as csv"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of git-lfs.*`git lfs pull`"),
        (b"<!DOCTYPE html>\n<html>", "a web page; download the file itself"),
        (tarred(TEXT), "a tar archive; unpack it"),
        (b"\xd0\xcf\x11\xe0" + b"\x00" * 600, r"a spreadsheet of old Excel \(\.xls\)"),
    ],
)
def test_what_is_no_text_is_named_with_the_remedy(tmp_path, kind, data, message):
    path = tmp_path / f"a.{kind.kind}"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.{kind.kind} is {message}"):
        load_pool(kind(str(path)))


def test_an_archive_inside_a_compressed_file_is_named(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(tarred(TEXT)))
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz is a tar archive; unpack it"):
        load_pool(JsonlPool(str(tmp_path / "a.jsonl.gz")))


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
def test_a_json_array_gives_the_pool_of_its_objects(tmp_path, indent, name):
    rows = [{"id": str(i), "prompt": f"say {i}\n, [and] more"} for i in range(5)]
    data = b"\xef\xbb\xbf\n" + json.dumps(rows, indent=indent).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    pool = load_pool(JsonlPool(str(tmp_path / name)))
    assert list(zip(pool.ids, pool.prompts, strict=True)) == [(row["id"], row["prompt"]) for row in rows]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"prompt": "x"},\n\n{"prompt": ""}]', r"a\.json:3: the prompt is empty"),
        ('[{"prompt": "x"},\n"y"]', r"a\.json:2: found str, not an object"),
        ('[{"prompt": "x"},\n{"prompt": "y"}', r"a\.json:2: not a JSON array: the file ends before the array does"),
        ('[{"prompt": "x"},\n{"prompt": oh}]', r"a\.json:2: not a JSON array: Expecting value"),
        ('[{"prompt": "x"}]\n[{"prompt": "y"}]', r"comes after the end of the array"),
        ("[]", r"a\.json holds no prompts: it has no rows"),
        ('{\n"prompt": "x"\n}', r"a\.json:1: not a JSON object.*write every object on one line"),
    ],
)
def test_a_bad_item_of_a_json_array_is_named_by_its_line(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_pool(JsonlPool(str(tmp_path / "a.json")))


def test_json_files_in_a_folder_are_pointed_at(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"holds no file that ends in \.jsonl.*pool=jsonl 'pool\.path=.*/\*\.json'"):
        load_pool(JsonlPool(str(tmp_path)))


def test_the_advice_for_a_folder_of_json_files_works(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"id": name, "prompt": name}]))
    with pytest.raises(ValueError, match=r"pool=jsonl 'pool\.path=.*\*\.json'") as refused:
        load_pool(JsonlPool(str(tmp_path)))
    advised = str(refused.value).split("'pool.path=")[1].split("'")[0]
    assert list(load_pool(JsonlPool(advised)).ids) == ["a", "b"]


@pytest.mark.parametrize("mark", [";", ","])
def test_the_advice_for_a_spreadsheet_works(tmp_path, mark):
    (tmp_path / "a.csv").write_bytes(zipped(xl__workbook_xml=b"<workbook/>"))
    with pytest.raises(ValueError, match=r"is a spreadsheet .*; save the sheet as csv \(UTF-8\), which pool=csv reads"):
        load_pool(CsvPool(str(tmp_path / "a.csv")))
    rows = (["id", "prompt"], ["1", "Gr\u00fc\u00dfe\u2026"], ["", ""])
    text = "".join(f"{mark.join(row)}\r\n" for row in rows)  # as Excel saves it
    (tmp_path / "a.csv").write_bytes(text.encode("utf-8-sig"))
    assert list(load_pool(CsvPool(str(tmp_path / "a.csv"))).prompts) == ["Gr\u00fc\u00dfe\u2026"]


@pytest.mark.parametrize(
    ("kind", "name", "data", "message"),
    [
        (CsvPool, "a.csv", "id,prompt\n1,é\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (CsvPool, "a.csv", "id,prompt\n1,é\n".encode("utf-16-le"), "is UTF-16 text, or not text; save it as UTF-8"),
        (JsonlPool, "a.jsonl", TEXT.decode().encode("utf-16-be"), "is UTF-16 text, or not text; save it as UTF-8"),
        (
            JsonlPool,
            "a.jsonl.gz",
            gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0),
            "is compressed more often .*; unpack it once",
        ),
        (ParquetPool, "a.parquet", gzip.compress(b"PAR1", mtime=0), "is compressed more often .*; unpack it once"),
        (CsvPool, "a.csv", TEXT, r"holds JSON, not csv; end its name in \.jsonl"),
        (CsvPool, "a.csv", b'[\n  {"prompt": "x"}\n]', r"holds JSON, not csv; end its name in \.jsonl"),
    ],
)
def test_text_of_another_kind_than_its_name_says_is_named(tmp_path, kind, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name} {message}"):
        load_pool(kind(str(tmp_path / name)))


def test_rows_inside_an_object_are_pointed_at(tmp_path):
    (tmp_path / "a.json").write_text('{"version": 1, "data": [{"prompt": "x"}]}')
    with pytest.raises(ValueError, match=r"'data' lists the rows, .* only"):
        load_pool(JsonlPool(str(tmp_path / "a.json")))
    (tmp_path / "a.json").write_text('[{"prompt": "x"}]')
    assert list(load_pool(JsonlPool(str(tmp_path / "a.json"))).prompts) == ["x"]
