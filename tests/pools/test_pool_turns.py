"""Conversations in the forms they are found in: each gives the prompt and response that its turns hold."""

import csv
import json

import pytest

from aliquot.config.create import create
from aliquot.pools.cleaning import Cleaning
from aliquot.pools.prepare import load_pool, prepare
from aliquot.pools.spec import JsonlPool

NAMES = {"system": "system", "user": "human", "assistant": "gpt"}
TALK = [("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")]


def write(folder, *talks, column="messages", **options):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), column: talk}) + "\n" for i, talk in enumerate(talks)))
    return JsonlPool(str(path), **{"messages": column, **options})


def talk(*turns):
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize(
    "messages",
    [
        talk(*TALK),
        talk(("developer", "Be brief."), *TALK[1:]),
        json.dumps(talk(*TALK)),
        [{"from": NAMES[role], "value": content} for role, content in TALK],
        [{"role": role, "content": [{"type": "text", "text": content}]} for role, content in TALK],
        [*talk(*TALK), {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}],
    ],
)
def test_every_form_of_a_conversation_gives_the_same_prompt_and_response(tmp_path, messages):
    spec = write(tmp_path, messages)
    assert list(load_pool(spec).prompts) == ["Be brief.\n\nWhy?"]
    assert spec.read_responses(["0"]) == {"0": "So."}


def test_several_turns_of_the_system_or_the_user_are_joined(tmp_path):
    turns = [
        ("system", "One."),
        ("developer", "Two."),
        ("user", "Three?"),
        ("user", "Four?"),
        *TALK[2:],
        ("user", "No"),
    ]
    spec = write(tmp_path, talk(*turns))
    assert list(load_pool(spec).prompts) == ["One.\n\nTwo.\n\nThree?\n\nFour?"]
    assert spec.read_responses(["0"]) == {"0": "So."}


def test_turns_before_the_users_that_are_not_read_are_counted_by_role(tmp_path):
    spec = write(
        tmp_path, talk(("tool", "x"), *TALK), talk(("assistant", "Hi"), ("user", "And?")), talk(("user", "Or?"))
    )
    prepare(spec, tmp_path)
    hints = json.loads((tmp_path / "report.json").read_text())["hints"]
    assert [hint.split(" before")[0] for hint in hints] == [
        f"1 conversation has a turn of role '{role}'" for role in ("assistant", "tool")
    ]


def test_a_call_of_a_tool_is_no_response_though_the_prompt_is_read(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}
    spec = write(tmp_path, [*talk(*TALK[:2]), call, *talk(("tool", "12"), ("assistant", "It is 12."))])
    assert len(load_pool(spec)) == 1
    with pytest.raises(ValueError, match=r"no text .* 'assistant'"):
        spec.read_responses(["0"])


def test_a_part_that_is_no_text_is_refused(tmp_path):
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": "x"}]
    with pytest.raises(ValueError, match=r"a\.jsonl:1: message 1 .* 'messages' .* image_url; .*with text"):
        load_pool(write(tmp_path, talk(("user", parts))))


@pytest.mark.parametrize("column", ["prompt", "conversations"])
def test_the_advice_for_a_list_in_place_of_a_prompt_works(tmp_path, column):
    with pytest.raises(ValueError, match=rf"set pool\.messages={column}"):
        load_pool(write(tmp_path, talk(*TALK), column=column, messages=None))
    assert list(load_pool(write(tmp_path, talk(*TALK), column=column)).prompts) == ["Be brief.\n\nWhy?"]


@pytest.mark.slow
def test_csv_holds_conversations_as_json_text(compose, tmp_path):
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([["id", "talk"], ["0", json.dumps(talk(*TALK))]])
    spec = create(compose("pool=csv", f"pool.path={tmp_path / 'a.csv'}", "pool.messages=talk"), "pool")
    assert list(load_pool(spec).prompts) == ["Be brief.\n\nWhy?"]
    assert spec.read_responses(["0"]) == {"0": "So."}


@pytest.mark.parametrize("roles", [("User", "ASSISTANT"), ("prompter", "model"), ("human", "chatgpt")])
@pytest.mark.parametrize("turn", ["first", "last"])
def test_roles_by_other_names_and_in_any_case_are_read(tmp_path, roles, turn):
    spec = write(tmp_path, talk(*zip(roles, ("Why?", "So."), strict=True)), turn=turn)
    assert list(load_pool(spec).prompts) == ["Why?"]
    assert spec.read_responses(["0"]) == {"0": "So."}


def test_lists_of_roles_and_contents_are_the_messages_that_they_list(tmp_path):
    columns = {"role": ["user", "assistant"], "content": ["Why?", "So."]}
    spec = write(tmp_path, columns)
    assert list(load_pool(spec).prompts) == ["Why?"]
    assert spec.read_responses(["0"]) == {"0": "So."}


@pytest.mark.parametrize("empty", [None, []])
def test_a_row_without_a_conversation_is_a_row_without_a_prompt(tmp_path, empty):
    with pytest.raises(ValueError, match=r"a\.jsonl:2: .*empty; .*pool\.clean\.empty=drop"):
        load_pool(write(tmp_path, talk(*TALK), empty))
    kept = load_pool(write(tmp_path, talk(*TALK), empty, clean=Cleaning(empty="drop")))
    assert list(kept.prompts) == ["Be brief.\n\nWhy?"]


def test_an_assistant_who_speaks_before_any_question_begins_no_prompt(tmp_path):
    turns = talk(("user", " "), ("assistant", "Hello."), ("user", "Why?"), ("assistant", "So."))
    assert list(load_pool(write(tmp_path, turns, turn="last")).prompts) == ["Why?"]


def test_the_remedy_for_a_conversation_without_a_response_names_no_column(tmp_path):
    with pytest.raises(ValueError, match=r"\(the roles are user\); so the oracle") as refused:
        write(tmp_path, talk(("user", "Why?"))).check_responses()
    assert "pool.response" not in str(refused.value)
