"""Pools that broke neighboring tools: each is read right, or one line says what was asked, found and is to be done."""

import csv
import re
import shlex
from pathlib import Path

import pytest

from aliquot.config.create import create
from aliquot.models.template import Encoding
from aliquot.pools.cleaning import PoolReport
from aliquot.pools.prepare import load_prepared, prepare
from small_tokenizers import small_tokenizer

HERE = Path(__file__).parent
TASKS = ["Name three rivers of the Alps.", "Translate into German.", "Add the numbers.", "Give an antonym of 'cold'."]
ANSWERS = ["Rhine, Rhone, Po.", "Guten Morgen", "7", "hot"]
SHEET = [f"{task} \u2013 please" for task in [*TASKS[:3], "Give an antonym of \u2019cold\u2019."]]


@pytest.fixture
def source(compose):
    """Name a case as the command line does."""
    kinds = {".csv": "csv", ".parquet": "parquet"}

    def named(case, *overrides):
        path = HERE / case
        return create(compose(f"pool={kinds.get(path.suffix, 'jsonl')}", f"pool.path={path}", *overrides), "pool")

    return named


@pytest.fixture
def read(source, tmp_path):
    """Prepare a case; returns the pool and what the terminal says of it."""

    def reading(case, *overrides):
        prepare(source(case, *overrides), tmp_path)
        return load_prepared(tmp_path, "case"), PoolReport.read(tmp_path).line("case") or ""

    return reading


def refusal(read, case, *overrides):
    """Return the one line with which a case is refused."""
    with pytest.raises(ValueError, match=r"\A.*\Z") as refused:
        read(case, *overrides)
    return str(refused.value)


def settings_in(message):
    """Return the overrides that a message advises, without the quotes that are for the shell."""
    return [shlex.split(text)[0].rstrip(",;.)") for text in re.findall(r"'pool\.\S+=.*?'|pool\.[\w.]+=\S+", message)]


NAMED = ("pool.prompt=instruction", "pool.id=qid", "pool.task=topic")


@pytest.mark.slow
def test_columns_that_are_named_are_read(read):
    pool, _ = read("column-not-there/alpaca.jsonl", *NAMED, "pool.context=input")
    assert list(pool.prompts) == ["Translate into German.\n\nGood morning", "Translate into German.\n\nGood night"]
    assert (list(pool.ids), list(pool.tasks)) == (["a1", "a2"], ["geo", "geo"])


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["pool.context=inputs", "pool.id=quid", "pool.task=topics"])
def test_a_column_that_no_row_has_is_refused_with_those_there_are(read, wrong):
    said = refusal(read, "column-not-there/alpaca.jsonl", *NAMED, wrong)
    column, name = wrong.split("=")
    assert f"none of 2 rows has a column '{name}' ({column}); the columns are qid, topic, instruction, input" in said
    assert f"; correct {column}, or set {column}=null" in said


@pytest.mark.slow
def test_near_misses_of_default_names_are_pointed_out_and_the_advice_works(read):
    pool, said = read("column-not-there/blank_in_header.csv")
    assert (len(pool), pool.tasks) == (2, None)
    advised = settings_in(said)
    pool, said = read("column-not-there/blank_in_header.csv", *advised)
    assert (list(pool.ids), list(pool.tasks), said) == (["x1", "x2"], ["geo", "geo"], "")


@pytest.mark.slow
def test_a_header_with_blanks_is_refused_and_the_advice_works(read):
    advised = settings_in(refusal(read, "spreadsheets/header_blanks.csv"))
    pool, _ = read("spreadsheets/header_blanks.csv", *advised)
    assert list(pool.prompts) == ["Name a river.", "Name a lake."]


def test_a_compressed_file_is_read(read):
    pool, said = read("compressed/pool.jsonl.bz2")
    assert len(pool) > 1 and not said


@pytest.mark.slow
def test_a_json_array_is_read(read, source):
    named = ("json-array/alpaca_data.json", "pool.prompt=instruction", "pool.context=input", "pool.response=output")
    pool, _ = read(*named)
    assert list(pool.prompts) == [TASKS[0], f"{TASKS[1]}\n\nGood morning", f"{TASKS[2]}\n\n2 and 5", TASKS[3]]
    assert list(source(*named).read_responses(pool.ids).values()) == ANSWERS


def test_a_pointer_of_git_lfs_is_named(read):
    assert "is a pointer of git-lfs, not the data itself; run `git lfs pull`" in refusal(
        read, "json-array/lfs_pointer.jsonl"
    )


def test_a_repeated_column_of_parquet_is_refused(read):
    said = refusal(read, "parquet/prompt_twice.parquet")
    assert said.endswith("prompt_twice.parquet: column 'prompt' is there twice; give every column its own name")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "before"),
    [
        ("messages-as-text/json_text.jsonl", ""),
        ("sharegpt/sharegpt.jsonl", "Be brief.\n\n"),
        ("prompt-is-a-list/conversational.jsonl", ""),
    ],
)
def test_a_conversation_is_refused_as_a_prompt_and_the_advice_works(read, source, case, before):
    advised = settings_in(refusal(read, case))
    pool, _ = read(case, *advised)
    assert list(pool.prompts) == [before + task for task in TASKS]
    if "list" in case:
        with pytest.raises(ValueError, match=r":1: no text .* 'assistant' .* column 'prompt'"):
            source(case, *advised).check_responses()
    else:
        assert list(source(case, *advised).read_responses(pool.ids).values()) == ANSWERS


@pytest.mark.slow
def test_developers_and_several_system_turns_are_part_of_the_prompt_and_other_turns_are_counted(read):
    pool, said = read("roles/messages.jsonl", "pool.messages=messages")
    assert list(pool.prompts) == [
        "Answer in French.\n\nWhat is the capital of Peru?",
        "Answer in Dutch.\n\nWhat is the capital of Peru?",
        "You are a tutor.\n\nAnswer in verse.\n\nWhat is rain?",
        "You are a tutor.\n\nSo what is snow?",
    ]
    assert "1 conversation has a turn of role 'tool' before the user's; it is not read" in said


@pytest.mark.slow
def test_calls_of_tools_are_no_responses_and_the_prompts_are_read(read, source):
    pool, _ = read("tool-calls/tool_calls.jsonl", "pool.messages=messages")
    assert list(pool.prompts) == [
        f"You may call tools.\n\nHow warm is it in {city}?" for city in ("Bern", "Oslo", "Rome")
    ]
    with pytest.raises(ValueError, match=r"jsonl:1: no text .* 'assistant' .*; so"):
        source("tool-calls/tool_calls.jsonl", "pool.messages=messages").check_responses()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sheet", "said"), [("blank_rows", "4 of 7 rows are left (3 rows of empty cells)"), ("sep_line", "")]
)
def test_what_spreadsheets_write_is_read(read, sheet, said):
    pool, told = read(f"spreadsheets/{sheet}.csv")
    assert list(pool.prompts) == SHEET
    assert said in told and bool(said) == bool(told)


@pytest.mark.slow
def test_a_null_prompt_is_refused_and_listed_and_dropping_it_works(read, tmp_path):
    said = refusal(read, "spreadsheets/null_prompt.jsonl")
    assert "null_prompt.jsonl:2: the prompt in column 'prompt' is null; fill it in or drop the line, or set " in said
    assert str(tmp_path / "problems.csv") in said
    with open(tmp_path / "problems.csv", newline="") as file:
        assert [(row["line"], row["id"]) for row in csv.DictReader(file)] == [("2", "b")]
    pool, told = read("spreadsheets/null_prompt.jsonl", *settings_in(said))
    assert list(pool.ids) == ["a", "c"] and "2 of 3 rows are left (1 without a prompt)" in told


@pytest.mark.slow
def test_text_that_looks_like_a_control_token_stays_text(read, source):
    case = "special-tokens/pool.jsonl"
    pool, _ = read(case)
    responses = source(case).read_responses(pool.ids)
    tokenizer = small_tokenizer("llama3")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end_story|>"]})
    encoding = Encoding(tokenizer, "{prompt}\nAnswer: {response}", "refuse", None)
    pairs, literal = encoding.read_pairs(pool.prompts, [responses[row_id] for row_id in pool.ids])
    end = tokenizer.convert_tokens_to_ids("<|end_story|>")
    assert not any(end in [*prompt, *response] for prompt, response in pairs)
    assert {0, 2} <= literal
