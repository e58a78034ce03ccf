"""Pools from files: what is read, what identifies a row, and what each kind of bad file or row is told."""

import gzip
import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aliquot.pools.cleaning import Cleaning
from aliquot.pools.prepare import load_pool
from aliquot.pools.spec import CsvPool, JsonlPool, ParquetPool


def write(path, rows, **options):
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    write_bytes(path, text.encode())
    return JsonlPool(str(path), **options)


def write_bytes(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        with pa.output_stream(str(path), compression="zstd") as file:
            file.write(data)
    else:
        path.write_bytes(data)


ROWS = [
    {"id": "a", "prompt": "Add 1 and 2.", "response": "3", "task": "sums"},
    {"id": "b", "prompt": 'Name a "red", or\nblue, thing.', "response": "rose", "task": "names"},
]
CSV = 'id,prompt,response,task\r\na,Add 1 and 2.,3,sums\r\n\r\nb,"Name a ""red"", or\nblue, thing.",rose,names\r\n'


def make(tmp_path, form):
    """Write ROWS in one of the formats, and return the pool that reads them."""
    path = tmp_path / f"pool.{form}"
    if form.startswith("jsonl"):
        return write(path, ROWS)
    if form.startswith(("csv", "tsv")):
        write_bytes(path, (CSV if form.startswith("csv") else CSV.replace(", ", "; ").replace(",", "\t")).encode())
        return CsvPool(str(path))
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return ParquetPool(str(path))


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst", "tsv", "parquet"])
def test_every_format_gives_the_same_pool_and_the_same_responses(tmp_path, form):
    spec = make(tmp_path, form)
    pool = load_pool(spec)
    assert list(pool.ids) == ["a", "b"]
    assert [prompt.replace("; ", ", ") for prompt in pool.prompts] == [row["prompt"] for row in ROWS]
    assert list(pool.tasks) == ["sums", "names"]
    assert spec.read_responses(["b"]) == {"b": "rose"}
    spec.check_responses()


def test_a_mark_of_byte_order_crlf_and_blank_lines_are_no_content(tmp_path):
    lines = "".join(json.dumps(row) + "\r\n\r\n" for row in ROWS)
    write_bytes(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + lines.encode())
    write_bytes(tmp_path / "a.csv", b"\xef\xbb\xbf" + CSV.encode())
    assert list(load_pool(JsonlPool(str(tmp_path / "a.jsonl"))).ids) == ["a", "b"]
    assert list(load_pool(CsvPool(str(tmp_path / "a.csv"))).ids) == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "id;prompt;task\r\na;one, two;x\r\n",  # a spreadsheet where the comma is the sign before decimals
        'id,prompt,task,,\na,"one, two",x,,\n',  # columns at the end that held something once
        'id,prompt,task\na,"one, two",x,,\n',
    ],
)
def test_csv_as_spreadsheets_write_it_is_read(tmp_path, text):
    write_bytes(tmp_path / "a.csv", b"\xef\xbb\xbf" + text.encode())
    pool = load_pool(CsvPool(str(tmp_path / "a.csv")))
    assert [list(pool.ids), list(pool.prompts), list(pool.tasks)] == [["a"], ["one, two"], ["x"]]


def test_a_folder_and_a_glob_are_read_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "in" / "b.jsonl", [{"prompt": "two"}])
    write(tmp_path / "in" / "a.jsonl.gz", [{"prompt": "one"}])
    write(tmp_path / "in" / "deep" / "c.jsonl", [{"prompt": "three"}])
    (tmp_path / "in" / "README.md").write_text("no data")
    (tmp_path / "in" / ".cache.jsonl").write_text("no data")
    assert list(load_pool(JsonlPool(str(tmp_path / "in"))).prompts) == ["one", "two", "three"]
    assert list(load_pool(JsonlPool(str(tmp_path / "in" / "[b-z]*.jsonl"))).prompts) == ["two"]
    assert list(load_pool(JsonlPool(str(tmp_path / "in" / "**" / "*.jsonl"))).prompts) == ["two", "three"]


def test_columns_are_named_in_the_config_nested_ones_by_their_path(tmp_path):
    rows = [{"q": {"text": "Sum up."}, "text": "A story.", "meta": {"task": 7}, "n": 1, "a": "A."}]
    names = {"prompt": "q.text", "context": "text", "id": "n", "task": "meta.task", "response": "a"}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for spec in (write(tmp_path / "a.jsonl", rows, **names), ParquetPool(str(tmp_path / "a.parquet"), **names)):
        pool = load_pool(spec)
        assert list(pool.prompts) == ["Sum up.\n\nA story."]
        assert (list(pool.ids), list(pool.tasks)) == (["1"], ["7"])
        assert spec.read_responses(["1"]) == {"1": "A."}


def turn(role, content):
    return {"role": role, "content": content}


def test_of_messages_the_first_question_is_the_prompt_and_its_answer_the_response(tmp_path):
    talk = [turn("assistant", "Hello!"), turn("user", "Why?"), turn("assistant", "So."), turn("user", "And?")]
    rows = [{"id": "a", "messages": talk}, {"id": "b", "messages": [turn("system", "Be brief."), *talk[1:]]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    parquet = ParquetPool(str(tmp_path / "a.parquet"), messages="messages")
    for spec in (write(tmp_path / "a.jsonl", rows, messages="messages"), parquet):
        assert list(load_pool(spec).prompts) == ["Why?", "Be brief.\n\nWhy?"]
        assert spec.read_responses(["a", "b"]) == {"a": "So.", "b": "So."}


def test_a_pool_holds_no_response_anywhere(tmp_path):
    rows = [{**row, "response": "SECRET"} for row in ROWS]
    pool = load_pool(write(tmp_path / "pool.jsonl", rows))
    assert "SECRET" not in repr([*pool.ids, *pool.prompts, *pool.tasks])


def test_ids_made_from_prompts_are_stable_when_rows_are_reordered(tmp_path):
    rows = [{"prompt": "one"}, {"prompt": "two"}, {"prompt": " one\n"}]
    forward = load_pool(write(tmp_path / "a.jsonl", rows))
    backward = load_pool(write(tmp_path / "b.jsonl", rows[::-1]))
    assert sorted(forward.ids) == sorted(backward.ids)
    assert forward.tasks is None


def test_identity_follows_content_and_limit_but_not_location(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    one = write(tmp_path / "a.jsonl", ROWS)
    two = write(tmp_path / "elsewhere" / "b.jsonl", ROWS)
    other = write(tmp_path / "c.jsonl", ROWS[:1])
    assert one.identity() == two.identity() != other.identity()
    for change in ({"limit": 1}, {"sample": 1}, {"prompt": "id"}, {"clean": Cleaning(exact=False)}):
        assert JsonlPool(one.path, **change).identity() != one.identity()
    assert JsonlPool(str(tmp_path)).identity() != one.identity()  # several files
    for name in ("a.csv", "a.tsv"):
        (tmp_path / name).write_text(CSV)
    assert CsvPool(str(tmp_path / "a.csv")).identity() != CsvPool(str(tmp_path / "a.tsv")).identity()


def test_limit_keeps_the_first_rows_and_reads_no_further(tmp_path):
    spec = write(tmp_path / "a.jsonl", [*ROWS, "this line is never parsed\n"], limit=2)
    assert len(load_pool(spec)) == 2
    assert set(spec.read_responses(["a", "b"])) == {"a", "b"}


MESSAGES = {"messages": "messages"}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([ROWS[0], "{broken\n"], {}, r"a\.jsonl:2: not a JSON object"),
        ([ROWS[0], '"just text"\n'], {}, r"a\.jsonl:2: found str, not an object"),
        ([ROWS[0], "[" * 100_000 + "\n"], {}, r"a\.jsonl:2: not a JSON object"),
        ([ROWS[0], "\n", {"id": "b"}], {}, r"a\.jsonl:3: no text in column 'prompt': the columns are id; name"),
        ([{"prompt": 7}], {}, r"a\.jsonl:1: no text in column 'prompt': it is 7"),
        ([{"prompt": None}], {}, r"a\.jsonl:1: the prompt in column 'prompt' is null"),
        ([{"messages": []}], {}, r"a\.jsonl:1: no text in column 'prompt'.*set pool\.messages=messages"),
        ([ROWS[0], {"prompt": "  "}], {}, r"a\.jsonl:2: the prompt is empty"),
        ([{"prompt": "x", "context": 3}], {"context": "context"}, r"a\.jsonl:1: no text in column 'context': it is 3"),
        ([{"prompt": "x", "id": [1]}], {}, r"a\.jsonl:1: the id in column 'id' is \[1\]; give text or a whole number"),
        ([{"prompt": "x", "task": 0.5}], {}, r"a\.jsonl:1: the task in column 'task' is 0\.5.*pool\.task=null"),
        ([{"prompt": "x", "task": "\ud800"}], {}, r"a\.jsonl:1: column 'task' holds half a character"),
        ([{"prompt": "\ud800 x"}], {}, r"a\.jsonl:1: column 'prompt' holds half a character \(a lone surrogate\)"),
        ([*ROWS, {"id": "a", "prompt": "x"}], {}, r"a\.jsonl:3: id 'a' was already used in line 1; give every row"),
        (
            [*ROWS, ROWS[0]],
            {"clean": Cleaning(exact=False)},
            r"3: id 'a' was already used in line 1.*clean\.exact=true",
        ),
        ([], {}, r"a\.jsonl holds no prompts: it has no rows"),
        (ROWS, {"clean": Cleaning(max_words=2)}, r"a\.jsonl holds no prompts: all 2 rows were dropped"),
        (ROWS, {"sample": 3}, r"pool\.sample=3 exceeds the 2 prompts that are left"),
        ([{"messages": "x"}], MESSAGES, r"a\.jsonl:1: no list of messages in column 'messages': it is \"x\""),
        ([{"messages": [turn("assistant", "x")]}], MESSAGES, r"no turn of role 'user' \(the roles are assistant\)"),
        ([{"messages": [{"who": "me"}]}], MESSAGES, r"a\.jsonl:1: message 1 in column 'messages' is \{\"who\""),
        ([{"messages": [turn("user", " ")]}], MESSAGES, r"a\.jsonl:1: the prompt is empty"),
        ([{"messages": [turn("user", None)]}], MESSAGES, r"a\.jsonl:1: message 1 in column 'messages' is"),
    ],
)
def test_bad_rows_are_named_by_file_and_line_with_the_remedy(tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        load_pool(write(tmp_path / "a.jsonl", rows, **options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"id,prompt\na\n", r"a\.csv:2: 1 cell where the header has 2"),
        (b"id,prompt\na,b\n1,one,too many\n", r"a\.csv:3: 3 cells where the header has 2"),
        (b'id,prompt\na,"never closed\nb,x\n', r"a\.csv:2: the row that begins here is not csv"),
        (b'id,prompt\na,"in "the" middle"\n', r"a\.csv:2: the row that begins here is not csv"),
        (b"id,prompt\na,b\x00c\n\nd,\n", r"a\.csv:4: the prompt in column 'prompt' is null"),
        (b"id,id\na,b\n", r"a\.csv:1: column 'id' is there twice"),
        (b"id,question\na,b\n", r"a\.csv:2: no text in column 'prompt': the columns are id, question"),
        (b"id,prompt\na,\xe9\n", r"a\.csv:2: the line is not UTF-8 text"),
        (b"id,prompt\n", r"a\.csv holds no prompts"),
        (b"", r"a\.csv holds no prompts"),
    ],
)
def test_bad_csv_is_named_by_file_and_line(tmp_path, text, message):
    write_bytes(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=message):
        load_pool(CsvPool(str(tmp_path / "a.csv")))


def test_a_prompt_longer_than_csv_usually_allows_is_read(tmp_path):
    write_bytes(tmp_path / "a.csv", b"prompt\n" + b"long " * 100_000 + b"\n")
    assert len(next(iter(load_pool(CsvPool(str(tmp_path / "a.csv"))).prompts))) == 500_000


def test_bad_parquet_is_named_by_file_and_row(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 is not enough")
    with pytest.raises(ValueError, match=r"a\.parquet: not readable as parquet"):
        load_pool(ParquetPool(str(path)))
    pq.write_table(pa.table({"prompt": ["x", None]}), path)
    with pytest.raises(ValueError, match=r"a\.parquet:2: the prompt in column 'prompt' is null"):
        load_pool(ParquetPool(str(path)))
    pq.write_table(pa.table({"text": ["x"], "n": [1]}), path)
    with pytest.raises(ValueError, match=r"a\.parquet:1: no text in column 'prompt': the columns are text, n"):
        load_pool(ParquetPool(str(path)))
    pq.write_table(pa.table({"prompt": pa.array([b"\xff"]).view(pa.string())}), path)
    with pytest.raises(ValueError, match=r"a\.parquet:1-1: a row is not UTF-8 text"):
        load_pool(ParquetPool(str(path)))
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), path)
    with pytest.raises(ValueError, match=r"a\.parquet holds no prompts"):
        load_pool(ParquetPool(str(path)))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"a\.parquet: not readable as parquet"):
        load_pool(ParquetPool(str(path)))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_or_truncated_compression_is_told_apart_from_bad_text(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    write(path, [{"prompt": str(i)} for i in range(9000)])
    whole = path.read_bytes()
    for broken in (whole[:-40], whole[:12] + b"\xff" * 50, b"not compressed"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=rf"a\.jsonl\{suffix} is damaged or cut off after line \d+"):
            load_pool(JsonlPool(str(path)))


def test_text_that_is_no_utf8_is_named_by_its_line(tmp_path):
    (tmp_path / "b.jsonl").write_bytes('{"prompt": "é"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"b\.jsonl:1: the line is not UTF-8 text .*save it as UTF-8"):
        load_pool(JsonlPool(str(tmp_path / "b.jsonl")))


def test_a_wrong_path_is_told_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=r"none\.jsonl does not exist; set pool\.path to a jsonl file"):
        load_pool(JsonlPool(str(tmp_path / "none.jsonl")))
    with pytest.raises(ValueError, match=r"holds no file that ends in \.parquet"):
        load_pool(ParquetPool(str(tmp_path)))
    write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ValueError, match=r"a\.jsonl is jsonl, not csv; use pool=jsonl"):
        load_pool(CsvPool(str(tmp_path / "a.jsonl")))
    (tmp_path / "b.csv").write_text(CSV)
    with pytest.raises(ValueError, match=r"b\.csv is csv, not jsonl \(1 of 2 files\); use pool=csv, or name the jsonl"):
        load_pool(JsonlPool(str(tmp_path)))


def test_a_missing_response_is_named_by_line_when_it_is_asked_for(tmp_path):
    spec = write(tmp_path / "a.jsonl", [ROWS[0], {"id": "b", "prompt": "x"}])
    spec.check_responses()
    with pytest.raises(ValueError, match=r"a\.jsonl:2: no text .* 'response': the columns are id, prompt; .*oracle"):
        spec.read_responses(["a", "b"])
    blank = write(tmp_path / "c.jsonl", [ROWS[0], {"id": "b", "prompt": "x", "response": " \n"}])
    with pytest.raises(ValueError, match=r"c\.jsonl:2: no text in column 'response': it is .*fill it in"):
        blank.read_responses(["b"])
    silent = write(tmp_path / "b.jsonl", [{"messages": [turn("user", "x")]}], messages="messages")
    with pytest.raises(ValueError, match=r"b\.jsonl:1: no text .* 'assistant' .*\(the roles are user\)"):
        silent.check_responses()


@pytest.mark.parametrize("field", ["limit", "sample"])
def test_no_prompts_at_all_are_refused(field):
    with pytest.raises(ValueError, match=f"pool.{field}=0 leaves no prompts"):
        JsonlPool("x", **{field: 0})


def test_responses_are_found_by_the_hash_ids_that_pools_had_before_they_began_with_a_letter(tmp_path):
    spec = write(tmp_path / "a.jsonl", [{"prompt": "x", "response": "y"}, {"prompt": "z", "response": "w"}])
    new = list(load_pool(spec).ids)
    old = [hashlib.sha256(prompt.encode()).hexdigest()[:16] for prompt in ("x", "z")]
    assert new == [f"h{row_id}" for row_id in old]
    assert spec.read_responses(old) == dict(zip(old, ["y", "w"], strict=True))
    assert spec.read_responses(new) == dict(zip(new, ["y", "w"], strict=True))
