"""Columns that are named and not there, and columns that are there twice: refused alike by every reader."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aliquot.pools.prepare import load_pool, prepare
from aliquot.pools.spec import CsvPool, HubPool, JsonlPool, ParquetPool


def write(folder, rows, form):
    """Write rows in one of the formats, and return the class and path of the pool that reads them."""
    path = folder / f"a.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return {"jsonl": JsonlPool, "csv": CsvPool, "parquet": ParquetPool}[form], str(path)


FORMS = ["jsonl", "csv", "parquet"]
ROWS = [{"qid": "a", "q": "Translate.", "input": text, "topic": "x"} for text in ("Good morning", "Good night")]
NAMED = {"prompt": "q", "context": "input", "id": "qid", "task": "topic"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ["context", "id", "task"])
def test_a_column_that_is_named_and_that_no_row_has_is_refused_with_those_there_are(tmp_path, form, what):
    kind, path = write(tmp_path, [{**row, "qid": str(i)} for i, row in enumerate(ROWS)], form)
    assert len(load_pool(kind(path, **NAMED))) == 2
    wrong = {**NAMED, what: NAMED[what] + "s"}
    found = rf"none of 2 rows has a column '{NAMED[what]}s' \(pool\.{what}\); the columns are qid, q, input, topic"
    with pytest.raises(ValueError, match=rf"{found}.*did you mean '{NAMED[what]}'.*set pool\.{what}=null"):
        load_pool(kind(path, **wrong))


def test_a_column_that_only_some_rows_have_is_no_mistake(tmp_path):
    kind, path = write(tmp_path, [{"q": "one"}, {"q": "two", "input": None}, {"q": "two", "input": "x"}], "jsonl")
    assert list(load_pool(kind(path, prompt="q", context="input")).prompts) == ["one", "two", "two\n\nx"]


def test_the_columns_of_a_dataset_of_the_hub_are_looked_for_too(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", [{"prompt": "x", "meta": {"topic": "y"}}], "parquet")
    assert list(load_pool(HubPool(str(tmp_path / "data"), None, task="meta.topic")).tasks) == ["y"]
    with pytest.raises(ValueError, match=r"none of 1 row has a column 'meta\.kind' \(pool\.task\)"):
        load_pool(HubPool(str(tmp_path / "data"), None, task="meta.kind"))


@pytest.mark.parametrize("form", FORMS)
def test_a_column_that_is_nearly_named_like_a_default_is_pointed_at(tmp_path, form):
    kind, path = write(tmp_path, [{"Id ": "x1", "TASK": "geo", "prompt": "Name a river."}], form)
    spec = kind(path)
    prepare(spec, tmp_path)
    hints = json.loads((tmp_path / "report.json").read_text())["hints"]
    assert hints == [
        "column 'Id ' is not read; 'pool.id=\"Id \"' takes it as the id",
        "column 'TASK' is not read; pool.task=TASK takes it as the task",
    ]


@pytest.mark.slow
def test_the_override_that_a_hint_names_is_understood(compose):
    assert compose("pool=csv", "pool.path=x", 'pool.id="Id "').pool.id == "Id "


def test_a_prompt_column_with_blanks_around_it_is_pointed_at(tmp_path):
    kind, path = write(tmp_path, [{"id ": "x1", " prompt ": "Name a river."}], "csv")
    with pytest.raises(ValueError, match=r"columns are 'id ', ' prompt '; .*mean ' prompt '\? .*'pool\.pr"):
        load_pool(kind(path))


@pytest.mark.parametrize("column", [{"prompt": "q"}, {"context": "c"}, {"response": "r"}])
def test_a_column_beside_messages_that_would_not_be_read_is_refused(column):
    ((name, value),) = column.items()
    with pytest.raises(ValueError, match=rf"pool\.{name}={value} is not read where pool\.messages=talk"):
        JsonlPool("x", messages="talk", **column)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", b'{"prompt": "x"}\n{"prompt": "x", "prompt": "y"}\n', r"a\.jsonl:2: .*key 'prompt' is there twice"),
        ("a.jsonl", b'{"prompt": "x", "meta": {"t": 1, "t": 2}}\n', r"a\.jsonl:1: .*key 't' is there twice"),
        ("a.json", b'[\n{"prompt": "x", "prompt": "y"}]', r"a\.json:2: .*key 'prompt' is there twice"),
        ("a.csv", b"prompt,prompt\nx,y\n", r"a\.csv:1: column 'prompt' is there twice"),
    ],
)
def test_a_key_or_column_that_is_there_twice_is_refused_in_text(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text)
    kind = CsvPool if name.endswith("csv") else JsonlPool
    with pytest.raises(ValueError, match=message):
        load_pool(kind(str(tmp_path / name)))


def test_a_column_or_field_that_is_there_twice_is_refused_in_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    texts = pa.array(["x"])
    pq.write_table(pa.table([texts, texts], names=["prompt", "prompt"]), path)
    with pytest.raises(ValueError, match=r"a\.parquet: column 'prompt' .* twice"):
        load_pool(ParquetPool(str(path)))
    nested = pa.StructArray.from_arrays([texts, texts], names=["t", "t"])
    pq.write_table(pa.table([texts, nested], names=["prompt", "meta"]), path)
    with pytest.raises(ValueError, match=r"a\.parquet:1-1: .*; give every field its own name"):
        load_pool(ParquetPool(str(path), task="meta.t"))


def test_the_remedy_for_a_context_that_is_no_text_names_the_context(tmp_path):
    kind, path = write(tmp_path, [{"prompt": "Add.", "input": 5}], "jsonl")
    with pytest.raises(
        ValueError, match=r"no text in column 'input': it is 5; name a column of text with pool\.context"
    ):
        load_pool(kind(path, context="input"))


def test_a_name_that_looks_the_same_in_another_normal_form_is_hinted_at(tmp_path):
    kind, path = write(tmp_path, [{"re\u0301ponse": "Why?"}], "jsonl")
    with pytest.raises(ValueError, match="did you mean 're\u0301ponse'"):
        load_pool(kind(path, prompt="r\u00e9ponse"))
