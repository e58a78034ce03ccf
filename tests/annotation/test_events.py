"""Answers that come as a stream of events though nobody asked for one."""

import json

import pytest

from aliquot.annotation.teachers.ledger import Reply
from aliquot.annotation.teachers.openai_replies import read_answer
from aliquot.annotation.teachers.request_queue import Again

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def stream(*chunks, end="data: [DONE]\n\n"):
    return ": hello\n\n" + "".join(f"event: message\ndata: {json.dumps(chunk)}\n\n" for chunk in chunks) + end


def chunk(delta, finish=None, **more):
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


@pytest.mark.parametrize("end", ["data: [DONE]\n\n", ""])
def test_a_stream_is_read_as_the_answer_that_its_chunks_make(end):
    parts = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Li"}), chunk({"content": "ma"}, "stop")]
    answer = read_answer(stream(*parts, {"model": "m", "choices": [], "usage": USAGE}, end=end))
    whole = {"model": "m", "choices": [{"message": {"content": "Lima"}, "finish_reason": "stop"}], "usage": USAGE}
    assert answer == read_answer(json.dumps(whole))
    assert (answer.response, answer.ending, answer.tokens) == ("Lima", "stop", (3, 2))


def test_reasoning_in_a_stream_is_told_from_the_response():
    answer = read_answer(
        stream(
            chunk({"reasoning_content": "H"}), chunk({"reasoning_content": "m."}), chunk({"content": "Lima"}, "stop")
        )
    )
    assert answer.response == "<think>\nHm.\n</think>\n\nLima"


def test_an_error_in_a_stream_is_that_error():
    with pytest.raises(Again, match="502 overloaded"):
        read_answer(stream(chunk({"content": "Li"}), {"error": {"message": "overloaded", "code": 502}}))


@pytest.mark.parametrize("text", [stream(), "data: {no json}\n\n", "data: 7\n\n", stream({"choices": 7})])
def test_a_stream_of_nothing_is_no_answer_that_can_be_read(text):
    with pytest.raises(Again, match="an answer that cannot be read"):
        read_answer(text)


def test_a_stream_that_cannot_be_read_is_kept_where_it_says_what_it_cost():
    answer = read_answer(stream({"choices": [], "usage": USAGE}))
    assert (answer.ending, answer.tokens) == ("unreadable", (3, 2))


def test_a_mark_of_byte_order_before_an_answer_is_no_part_of_it():
    body = json.dumps({"choices": [{"message": {"content": "Lima"}, "finish_reason": "stop"}], "usage": USAGE})
    assert read_answer("\ufeff" + body) == read_answer(body)


@pytest.mark.parametrize("ending", ["length", "max_tokens", "MAX_TOKENS"])
def test_a_cut_answer_is_known_as_one_whatever_its_server_calls_that(ending):
    reply = Reply("p", "q1", "Li", ending, 1, 1, True, "m", "")
    assert (reply.flaw(keep_cut=False), reply.flaw(keep_cut=True)) == ("cut", None)
