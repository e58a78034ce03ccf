"""Conversations as prompts: what was said before the last turn is read, taught and shown as turns."""

import csv
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aliquot.annotation.people.files import FileAnnotator
from aliquot.annotation.teachers.endpoint import EndpointTeacher
from aliquot.annotation.teachers.ledger import Question
from aliquot.config.create import create
from aliquot.evaluation.validation_loss import ValidationLoss
from aliquot.models.template import Encoding
from aliquot.pools.cleaning import Cleaning
from aliquot.pools.conversation import SIGN, as_prompt, as_text, joined, turns_of, with_texts
from aliquot.pools.prepare import load_pool, prepare
from aliquot.pools.spec import JsonlPool, PoolSpec
from small_tokenizers import CHATML, LLAMA3, small_tokenizer

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "Rhine."},
    {"role": "user", "content": "And a lake?"},
    {"role": "assistant", "content": "Como."},
]
TURNS = [("user", "Be brief.\n\nName a river."), ("assistant", "Rhine."), ("user", "And a lake?")]
TEXT = "User: Be brief.\n\nName a river.\n\nAssistant: Rhine.\n\nUser: And a lake?"
texts = st.text(st.characters(codec="utf-8", exclude_characters=SIGN)) | st.sampled_from(["User: a\n\n", "\n\n", ""])


def write(folder, *talks, **options):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "messages": talk}) + "\n" for i, talk in enumerate(talks)))
    return JsonlPool(str(path), messages="messages", **{"turn": "last", **options})


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), min_size=1).map(joined))
def test_a_prompt_gives_back_the_turns_it_was_written_from(turns):
    if len(turns) > 1:
        assert turns_of(as_prompt(turns)) == turns
        assert as_text(as_prompt(turns)).split() == as_prompt(turns).split()
    assert turns_of(with_texts(as_prompt(turns), str.upper)) == [
        (role, text.upper()) for role, text in turns_of(as_prompt(turns))
    ]


@given(st.text())
def test_a_text_that_no_conversation_wrote_is_one_turn_of_the_user(text):
    assert turns_of(text) == [("user", text)] and as_text(text) == text


@pytest.mark.parametrize("damaged", ["\x1eUser: a", "\x1eUser: a\x1eAssistant: b", "\x1eUser: a\n\n\x1eHe: b", "\x1e"])
def test_what_merely_begins_with_the_sign_stays_as_it_is(damaged):
    assert turns_of(damaged) == [("user", damaged)]


def test_the_last_turn_is_answered_and_what_was_said_before_it_is_in_the_prompt(tmp_path):
    spec = write(tmp_path, TALK)
    (prompt,) = load_pool(spec).prompts
    assert turns_of(prompt) == TURNS and as_text(prompt) == TEXT
    assert spec.read_responses(["0"]) == {"0": "Como."}
    first = write(tmp_path, TALK, turn="first")
    assert list(load_pool(first).prompts) == ["Be brief.\n\nName a river."]
    assert first.read_responses(["0"]) == {"0": "Rhine."}


def test_a_conversation_of_one_question_is_the_same_prompt_with_the_same_id_either_way(tmp_path):
    pools = [load_pool(write(tmp_path, TALK[:3], turn=turn, id=None)) for turn in ("first", "last")]
    assert [(list(pool.ids), list(pool.prompts)) for pool in pools] == [
        (list(pools[0].ids), ["Be brief.\n\nName a river."])
    ] * 2


@pytest.mark.slow
def test_every_reader_reads_the_last_turn(compose, tmp_path):
    sharegpt = [
        {"from": {"user": "human", "assistant": "gpt"}.get(t["role"], "system"), "value": t["content"]} for t in TALK
    ]
    (tmp_path / "a.jsonl").write_text(json.dumps({"talk": sharegpt}) + "\n")
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([["talk"], [json.dumps(TALK)]])
    pq.write_table(pa.table({"talk": [TALK]}), tmp_path / "a.parquet")
    (tmp_path / "hub").mkdir()
    pq.write_table(pa.table({"talk": [TALK]}), tmp_path / "hub" / "train.parquet")
    for kind, path in [("jsonl", "a.jsonl"), ("csv", "a.csv"), ("parquet", "a.parquet"), ("hub", "hub")]:
        overrides = (f"pool={kind}", f"pool.path={tmp_path / path}", "pool.messages=talk", "pool.turn=last")
        spec = create(compose(*overrides, *(["pool.revision=null"] if kind == "hub" else [])), "pool")
        pool = load_pool(spec)
        assert [turns_of(prompt) for prompt in pool.prompts] == [TURNS], kind
        assert list(spec.read_responses(pool.ids).values()) == ["Como."], kind


def test_calls_and_results_of_tools_in_the_history_are_passed_over_and_counted(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}
    spec = write(tmp_path, [*TALK[:2], call, {"role": "tool", "content": "Rhine: 1230 km"}, *TALK[2:]])
    prepare(spec, tmp_path)
    assert [turns_of(prompt) for prompt in load_pool(spec).prompts] == [TURNS]
    hints = json.loads((tmp_path / "report.json").read_text())["hints"]
    assert [re.findall(r"^1 conversation has a turn of role '(\w+)'", hint) for hint in hints] == [
        ["assistant"],
        ["tool"],
    ]


def test_a_last_turn_without_a_response_is_asked_and_not_answered_by_what_stands_before_it(tmp_path):
    spec = write(tmp_path, TALK[:4])
    assert len(load_pool(spec)) == 1
    with pytest.raises(ValueError, match=r"a\.jsonl:1: no text .* 'assistant' after .* last, in"):
        spec.check_responses()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"turn": "second"}, "pool.turn=second is neither first nor last"),
        ({"messages": None}, "pool.turn=last asks for conversations, and pool.messages=None; name their column"),
    ],
)
def test_a_turn_that_cannot_be_had_is_refused(options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        PoolSpec(**{"messages": "messages", "turn": "last", **options})


def test_a_turn_that_holds_the_sign_between_turns_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jsonl:1: a turn holds the sign U\+001E"):
        load_pool(write(tmp_path, [*TALK[:3], {"role": "user", "content": f"a{SIGN}b"}]))


def test_cleaning_sees_the_history(tmp_path):
    other = [*TALK[:2], {"role": "assistant", "content": "Rhone."}, *TALK[3:]]
    assert len(load_pool(write(tmp_path, TALK, other, TALK))) == 2
    long = " ".join(f"word{i}" for i in range(13))
    (tmp_path / "exam.txt").write_text(long)
    asked = [{"role": "user", "content": long}, *TALK[2:]]
    clean = Cleaning(decontaminate=[str(tmp_path / "exam.txt")])
    assert list(load_pool(write(tmp_path, TALK, asked, clean=clean)).ids) == ["0"]


@pytest.mark.parametrize("chat", [CHATML, LLAMA3], ids=["chatml", "llama3"])
@pytest.mark.parametrize("last", ["And a lake?", "What is <|im_end|> for?", "</s>"])
def test_the_chat_template_writes_the_history_as_turns(chat, last):
    tokenizer = small_tokenizer("llama3", chat)
    encoding = Encoding(tokenizer, "chat", "refuse", None)
    turns = [*TURNS[:2], ("user", last)]
    messages = [{"role": role, "content": text} for role, text in turns]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    answered = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": "Como."}], tokenize=False)
    (ids,), literal = encoding.read([as_prompt(turns)])
    assert tokenizer.decode(ids) == expected
    assert literal == ({0} if "<" in last else set())
    ((before, behind),) = encoding.pairs([as_prompt(turns)], ["Como."])
    assert before == ids and behind[-1] == tokenizer.eos_token_id
    assert tokenizer.decode([*before, *behind[:-1]]).rstrip() == answered.rstrip()
    parsed = tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert (ids == parsed) == ("<" not in last)


def test_a_plain_template_reads_the_history_as_text():
    tokenizer = small_tokenizer("llama3")
    encoding = Encoding(tokenizer, "Q {prompt}\nA {response}", "refuse", None)
    assert encoding.prompts([as_prompt(TURNS)]) == encoding.prompts([TEXT])


def test_a_teacher_gets_the_history_as_messages():
    messages = EndpointTeacher(model="any", system="Be kind.")._messages(Question("0", as_prompt(TURNS)))
    said = [{"role": role, "content": text} for role, text in TURNS]
    assert messages == [{"role": "system", "content": "Be kind."}, *said]


def test_people_read_the_history_as_text_and_their_answers_belong_to_it(tmp_path):
    people, prompt = FileAnnotator(folder=str(tmp_path)), as_prompt(TURNS)
    people.ask({"a": prompt})
    (row,) = map(json.loads, (tmp_path / "to_annotate.jsonl").read_text().splitlines())
    assert row["prompt"] == TEXT
    (tmp_path / "returned" / "a.jsonl").write_text(json.dumps(row | {"response": "Como."}) + "\n")
    for row_id in ("a", "another"):
        annotated = people.annotate(PoolSpec(), [row_id], [prompt], tmp_path)
        assert (list(annotated.prompts), list(annotated.responses)) == ([prompt], ["Como."])


@pytest.mark.parametrize(("turn", "prompts"), [("first", ["Be brief.\n\nName a river."]), ("last", [as_prompt(TURNS)])])
def test_the_validation_loss_reads_conversations_as_a_pool_does(tmp_path, turn, prompts):
    file = write(tmp_path, TALK).path
    rows = ValidationLoss(file, messages="messages", turn=turn).rows()
    assert (list(rows.prompts), list(rows.responses)) == (prompts, [{"first": "Rhine.", "last": "Como."}[turn]])


def test_the_validation_loss_names_its_own_settings(tmp_path):
    file = write(tmp_path, TALK).path
    with pytest.raises(ValueError, match=r"a\.jsonl:1: .* set evaluate\.messages=messages"):
        ValidationLoss(file).rows()
    with pytest.raises(ValueError, match=r"name the column with evaluate\.messages"):
        ValidationLoss(file, messages="talk").rows()
    with pytest.raises(ValueError, match=r"evaluate\.prompt=text is not read where evaluate\.messages=messages"):
        ValidationLoss(file, prompt="text", messages="messages")


def test_the_key_of_a_pool_does_not_move_at_the_default(tmp_path):
    from aliquot.store.store import canonical

    columns = [canonical(write(tmp_path, TALK, turn=turn).columns) for turn in ("first", "last")]
    assert "turn" not in columns[0] and columns[1]["turn"] == "last"
