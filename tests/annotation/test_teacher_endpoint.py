"""A teacher behind a real HTTP server that is slow, errs, cuts connections, talks nonsense and wants money."""

import logging
import os
import signal
import subprocess
import sys
import time
from email.utils import formatdate

import pytest

from aliquot.annotation.bill import Bill, Price
from aliquot.annotation.teachers.endpoint import EndpointTeacher
from aliquot.pools.spec import PoolSpec
from aliquot.store.store import key_fields
from fake_endpoint import KEY, MODEL, answer

pytest.importorskip("openai", reason="the client of teachers is not installed")

SOURCE = PoolSpec(name="any")
ERROR = {"error": {"message": "not now"}}


def prompts(num):
    return [f"prompt {i}" for i in range(num)]


def annotate(folder, num, **settings):
    asked = prompts(num)
    teacher = EndpointTeacher(model=MODEL, **settings)
    return teacher.annotate(SOURCE, [f"id{i}" for i in range(num)], asked, folder / "ledger")


@pytest.mark.slow
def test_responses_come_back_in_the_order_asked(serve, tmp_path):
    server = serve(seconds=0.01)
    annotated = annotate(tmp_path, 40)
    assert annotated.ids == [f"id{i}" for i in range(40)]
    assert annotated.prompts == prompts(40)
    assert annotated.responses == [f"the answer to prompt {i}" for i in range(40)]
    assert 2 <= server.most_at_once <= 8


def test_the_request_says_what_the_config_says_and_nothing_else(serve, tmp_path):
    server = serve()
    annotate(tmp_path, 1, system="Be brief.", temperature=0.5, max_tokens=9, seed=3)
    annotate(tmp_path, 1, temperature=None, token_limit="max_completion_tokens")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "prompt 0"}]
    first = {"model": MODEL, "messages": messages, "temperature": 0.5, "max_tokens": 9, "seed": 3}
    second = {"model": MODEL, "messages": messages[1:], "max_completion_tokens": 512}
    assert [body for _, _, body in server.requests] == [first, second]


@pytest.mark.slow
def test_a_larger_budget_pays_for_what_is_new(serve, tmp_path):
    server = serve()
    annotate(tmp_path, 20)
    assert annotate(tmp_path, 50).responses == [f"the answer to {prompt}" for prompt in prompts(50)]
    assert server.answered == dict.fromkeys(prompts(50), 1)
    annotate(tmp_path, 50, max_tokens=100)  # another teacher
    assert sum(server.answered.values()) == 100


def test_a_prompt_under_two_ids_is_paid_for_once(serve, tmp_path):
    server = serve()
    teacher = EndpointTeacher(model=MODEL)
    annotated = teacher.annotate(SOURCE, ["a", "b"], ["same", "same"], tmp_path)
    assert annotated.responses == ["the answer to same"] * 2
    assert server.answered == {"same": 1}
    assert teacher.bill((), ["same", "same"], tmp_path).input_tokens == len("same")


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble",
    [
        (429, ERROR, {}),
        (500, ERROR, {}),
        (503, ERROR, {"Content-Type": "text/html"}),
        "cut",
        {"object": "error", "message": "not now"},
        {"error": {"message": "not now", "code": 502}},
        {"error": "not now"},
        answer("x", usage=None) | {"choices": [{"finish_reason": "error", "message": {"content": "half"}}]},
    ],
    ids=lambda trouble: str(trouble)[:30],
)
def test_whatever_may_pass_is_tried_again(serve, tmp_path, trouble):
    server = serve(lambda prompt, attempt: trouble if attempt < 2 else answer(prompt))
    assert annotate(tmp_path, 12).responses == [f"the answer to {prompt}" for prompt in prompts(12)]
    assert len(server.requests) == 36


UNREADABLE = [
    *(b"\x00garbage", b"", b"[]", b"{}", answer("x", choices=[], usage=None), answer("x", choices=None, usage=None)),
    answer("x", content=[{"type": "image_url", "image_url": {"url": "x"}}], usage={"prompt_tokens": float("inf")}),
    answer("x", content=7, usage=None),
]


@pytest.mark.slow
@pytest.mark.parametrize("nonsense", UNREADABLE, ids=lambda nonsense: str(nonsense)[:30])
def test_what_cannot_be_read_is_asked_for_once_more_and_no_more(serve, tmp_path, nonsense):
    server = serve(lambda prompt, attempt: nonsense if attempt < 1 or prompt == "prompt 3" else answer(prompt))
    with pytest.raises(ValueError, match="1 x an answer that cannot be read, 2 times"):
        annotate(tmp_path, 12)
    assert len(server.requests) == 24
    assert len(annotate(tmp_path, 12, allow_partial=True)) == 11


PAID = [
    *(answer("x", choices=None), answer("x", content=[{"type": "image_url"}]), answer("x", choices=[{"delta": {}}])),
    answer("x") | {"error": {"message": "broke off", "code": 502}},
    answer("x", finish="error"),
]


@pytest.mark.slow
@pytest.mark.parametrize("nonsense", PAID, ids=range(len(PAID)))
def test_an_unreadable_answer_that_was_paid_for_is_charged_kept_and_asked_for_once_more(serve, tmp_path, nonsense):
    paid = nonsense | {"usage": {"input_tokens": 0, "output_tokens": 7}}
    server = serve(lambda prompt, attempt: paid if attempt < 1 or prompt == "prompt 3" else answer(prompt))
    settings = {"price_per_million": Price(0, 1e6), "max_tokens": 10}
    assert len(annotate(tmp_path, 12, **settings)) == 11
    assert len(annotate(tmp_path, 12, **settings)) == 11  # and never again
    assert len(server.requests) == 24
    bill = EndpointTeacher(model=MODEL, **settings).bill((), prompts(12), tmp_path / "ledger")
    assert (bill.cost, bill.left_out) == (13 * 7 + 11 * 5, {"unreadable": 1})
    assert len(next((tmp_path / "ledger").glob("*.jsonl")).read_text().splitlines()) == 24


@pytest.mark.slow
def test_unreadable_answers_are_never_bought_beyond_the_money(serve, tmp_path):
    server = serve(
        lambda prompt, attempt: answer(prompt, choices=[], usage={"prompt_tokens": 0, "completion_tokens": 9})
    )
    settings = {"price_per_million": Price(0, 1e6), "max_tokens": 10, "allow_partial": True}
    with pytest.raises(ValueError, match="none of the 50 prompts"):
        annotate(tmp_path, 50, max_cost=55, **settings)
    assert len(server.requests) == 6  # 6 x 9, and one more could cost 10


@pytest.mark.slow
def test_a_server_of_which_no_answer_can_be_read_is_not_asked_for_every_prompt(serve, tmp_path):
    server = serve(lambda prompt, attempt: answer(prompt, choices=[]))
    with pytest.raises(ValueError, match="the last 8 prompts got no answer in 2 attempts each: answers that cannot be"):
        annotate(tmp_path, 100)
    assert len(server.requests) <= 32


@pytest.mark.parametrize(
    ("content", "response"),
    [
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, "Lima"], "Lima"),
        ([{"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": "Lima"}], "Lima"),
        ({"type": "text", "text": {"value": "Lima"}}, "Lima"),
        ([{"type": "text", "text": "Lima"}, {"type": "image_url"}], "Lima"),
        ("\ud83d\ude00 \ud83d!", "\N{GRINNING FACE} \ufffd!"),
    ],
)  # fmt: skip
def test_an_answer_of_any_shape_is_read_and_asked_for_once(serve, tmp_path, content, response):
    server = serve(lambda prompt, _: answer(prompt, content=content))
    assert annotate(tmp_path, 3).responses == [response] * 3
    assert len(server.requests) == 3


def test_a_part_that_refuses_is_a_refusal(serve, tmp_path):
    serve(lambda prompt, _: answer(prompt, content=[{"type": "refusal", "refusal": "No."}]))
    with pytest.raises(ValueError, match="left out: 3 refused"):
        annotate(tmp_path, 3)


def test_reasoning_is_no_response_unless_asked_for_and_is_bought_once_for_both(serve, tmp_path, caplog):
    caplog.set_level(logging.INFO, "aliquot")
    message = {"role": "assistant", "content": "Lima", "reasoning_content": "Hm."}
    answers = {
        "prompt 0": answer("x", content="<think>\nHm.\n</think>\n\nLima"),
        "prompt 1": answer("x", choices=[{"finish_reason": "stop", "message": message}]),
        "prompt 2": answer("x", content="<think>\nHm.", finish="length"),
        "prompt 3": answer("x", content="<think>\nHm."),
        "prompt 4": answer("x", content="Lima"),
    }
    server = serve(lambda prompt, _: answers[prompt])
    annotated = annotate(tmp_path, 5, keep_cut=True)
    assert (annotated.ids, annotated.responses) == (["id0", "id1", "id4"], ["Lima"] * 3)
    assert "4 of 5 responses had reasoning, which is not trained on; annotator.keep_reasoning=true" in caplog.text
    assert "left out: 2 empty" in caplog.text
    kept = annotate(tmp_path, 5, keep_reasoning=True).responses
    assert kept == ["<think>\nHm.\n</think>\n\nLima"] * 2 + ["<think>\nHm.", "Lima"]
    assert len(server.requests) == 5


@pytest.mark.parametrize(("code", "status"), [(402, 200), ("insufficient_quota", 200), ("402", 200)], ids=str)
def test_an_error_that_comes_as_an_answer_stops_at_once_where_no_waiting_will_mend_it(serve, tmp_path, code, status):
    server = serve(lambda *_: (status, {"error": {"message": "no credits \ud83d", "code": code}}, {}))
    with pytest.raises(ValueError, match=r"the server accepts no requests: .*no credits \ufffd"):
        annotate(tmp_path, 100)
    assert len(server.requests) <= 8


def test_an_error_that_comes_as_an_answer_is_quoted(serve, tmp_path):
    serve(lambda *_: {"id": "gen-1", "error": {"message": "Upstream error: overloaded", "code": 502}})
    with pytest.raises(ValueError, match=r"1 of 1 prompt .*: 1 x 502 Upstream error: overloaded, 2 times"):
        annotate(tmp_path, 1, attempts=2)


@pytest.mark.slow
def test_a_storm_of_many_errors_ends_with_all_answered(serve, tmp_path):
    troubles = [(429, ERROR, {"Retry-After": "0.05"}), (500, ERROR, {}), "cut", (200, ERROR, {})]

    def behave(prompt, attempt):
        number = int(prompt.split()[1]) + attempt
        return troubles[number % 4] if attempt < number % 6 else answer(prompt)

    server = serve(behave, seconds=0.002)
    assert len(annotate(tmp_path, 100, concurrency=16)) == 100
    assert server.answered == dict.fromkeys(prompts(100), 1)


@pytest.mark.slow
def test_a_server_that_says_how_long_to_wait_is_left_alone_that_long(serve, tmp_path):
    told = []

    def behave(prompt, attempt):
        if prompt == "prompt 5" and attempt == 0:
            told.append(time.monotonic())
            return 429, ERROR, {"Retry-After": "2"}
        return answer(prompt)

    server = serve(behave, seconds=0.01)
    annotate(tmp_path, 40, concurrency=4)
    times = sorted(when - told[0] for when, _, _ in server.requests)
    assert not [when for when in times if 0.5 < when < 1.99]
    assert len([when for when in times if when > 1.99]) > 20


@pytest.mark.slow
def test_the_time_to_wait_may_be_a_date(serve, tmp_path):
    server = serve(lambda prompt, attempt: answer(prompt) if attempt else (503, ERROR, {"Retry-After": date()}))

    def date():
        return formatdate(time.time() + 2, usegmt=True)  # whole seconds: at least 1 from now

    annotate(tmp_path, 1)
    (first, _, _), (second, _, _) = server.requests
    assert 1 <= second - first < 10


@pytest.mark.slow
def test_a_server_that_wants_hours_stops_the_run_at_once(serve, tmp_path):
    server = serve(lambda *_: (429, ERROR, {"Retry-After": "7200"}))
    with pytest.raises(ValueError, match="asks to wait 7,200 seconds"):
        annotate(tmp_path, 50)
    assert len(server.requests) <= 8


@pytest.mark.slow
def test_no_more_requests_a_minute_than_allowed(serve, tmp_path):
    server, started = serve(), time.monotonic()
    annotate(tmp_path, 11, requests_per_minute=600)
    times = sorted(when - started for when, _, _ in server.requests)
    assert all(when >= 0.1 * i for i, when in enumerate(times))


@pytest.mark.slow
def test_a_slow_server_is_given_up_and_asked_again(serve, tmp_path):
    server = serve(lambda prompt, attempt: time.sleep(3 * (attempt == 0)) or answer(prompt))
    assert len(annotate(tmp_path, 1, timeout=1)) == 1
    assert len(server.requests) == 2


@pytest.mark.slow
def test_what_fails_for_good_is_named_and_the_rest_is_kept(serve, tmp_path):
    broken = {"prompt 3", "prompt 7"}
    server = serve(lambda prompt, attempt: (500, ERROR, {}) if prompt in broken else answer(prompt))
    with pytest.raises(
        ValueError, match=r"2 of 30 prompts got no response from fake-teacher: 2 x 500 not now, 3 times"
    ):
        annotate(tmp_path, 30, attempts=3)
    assert [server.prompts.count(prompt) for prompt in ("prompt 3", "prompt 4", "prompt 7")] == [3, 1, 3]
    (failed,) = (tmp_path / "ledger").glob("*.failed.csv")
    assert failed.read_text().splitlines() == ["id,reason", *(f'{i},"500 not now, 3 times"' for i in ("id3", "id7"))]
    assert annotate(tmp_path, 30, attempts=1, allow_partial=True).ids == [
        f"id{i}" for i in range(30) if i not in (3, 7)
    ]
    broken.clear()
    assert len(annotate(tmp_path, 30)) == 30
    assert not failed.exists()
    assert server.answered == dict.fromkeys(prompts(30), 1)


@pytest.mark.slow
def test_a_server_that_is_down_is_not_asked_for_every_prompt(serve, tmp_path):
    server = serve(lambda prompt, attempt: (500, ERROR, {}) if int(prompt.split()[1]) > 20 else answer(prompt))
    with pytest.raises(ValueError, match="the last 8 prompts got no answer in 2 attempts each: 500 not now"):
        annotate(tmp_path, 500, attempts=2)
    assert len(server.requests) < 80


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code"), [(401, None), (402, None), (403, None), (404, "model_not_found"), (429, "insufficient_quota")]
)
def test_what_no_waiting_will_mend_stops_at_once_and_keeps_what_was_answered(serve, tmp_path, status, code):
    error = {"error": {"message": "hopeless", "code": code}}
    server = serve(lambda prompt, _: answer(prompt) if int(prompt.split()[1]) < 20 else (status, error, {}))
    with pytest.raises(ValueError, match=f"the server accepts no requests: {status} hopeless"):
        annotate(tmp_path, 100)
    assert len(server.requests) <= 36
    assert set(prompts(20)) <= set(server.answered)
    server.behave = lambda prompt, _: answer(prompt)
    assert len(annotate(tmp_path, 100)) == 100
    assert server.answered == dict.fromkeys(prompts(100), 1)


@pytest.mark.slow
def test_a_request_that_no_prompt_passes_with_stops_at_once(serve, tmp_path):
    server = serve(lambda *_: (400, {"error": {"message": "Unsupported parameter: seed"}}, {}))
    with pytest.raises(ValueError, match="accepts no requests: 400 Unsupported parameter: seed"):
        annotate(tmp_path, 100)
    assert len(server.requests) <= 8


@pytest.mark.slow
def test_a_prompt_that_is_refused_for_itself_does_not_stop_the_others(serve, tmp_path):
    too_long = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    filtered = {"error": {"message": "policy", "code": "content_filter"}}
    errors = {"prompt 0": (400, too_long, {}), "prompt 30": (400, ERROR, {}), "prompt 31": (400, filtered, {})}
    serve(lambda prompt, _: errors.get(prompt) or answer(prompt))
    with pytest.raises(ValueError, match=r"2 of 40 prompts .* 1 x 400 too long \(such as id id0\)"):
        annotate(tmp_path, 40)
    assert len(annotate(tmp_path, 40, allow_partial=True)) == 37


@pytest.mark.slow
def test_refused_empty_and_cut_answers_are_counted_and_not_asked_again(serve, tmp_path):
    answers = {
        "prompt 0": {"content": None, "refusal": "I cannot help with that."},
        "prompt 1": {"content": "", "finish": "content_filter"},
        "prompt 2": {"content": " \n"},
        "prompt 3": {"content": None},
        "prompt 4": {"content": "and so on and", "finish": "length"},
        "prompt 5": {"content": "", "finish": "length"},
    }
    server = serve(lambda prompt, _: answer(prompt, **answers.get(prompt, {})))
    assert annotate(tmp_path, 8).ids == ["id6", "id7"]
    assert annotate(tmp_path, 8, keep_cut=True).ids == ["id4", "id6", "id7"]
    assert server.answered == dict.fromkeys(prompts(8), 1)
    bill = EndpointTeacher(model=MODEL).bill((), prompts(8), tmp_path / "ledger")
    assert (bill.num_asked, bill.num_responses) == (8, 2)
    assert bill.left_out == {"refused": 2, "empty": 2, "cut": 2}


@pytest.mark.slow
def test_answers_of_no_use_at_all_are_no_annotation(serve, tmp_path):
    serve(lambda prompt, _: answer(prompt, finish="length"))
    with pytest.raises(ValueError, match="none of the 5 prompts got a response of use"):
        annotate(tmp_path, 5)


@pytest.mark.slow
def test_the_bill_counts_the_tokens_of_the_server(serve, tmp_path, caplog):
    serve()
    settings = {"price_per_million": Price(1e6, 1e7), "model": MODEL}
    teacher = EndpointTeacher(**settings)
    with caplog.at_level(logging.INFO, logger="aliquot"):
        teacher.annotate(SOURCE, ["a", "b"], ["one", "two"], tmp_path)
    bill = teacher.bill((), ["one", "two"], tmp_path)
    assert (bill.by, bill.num_asked, bill.num_responses) == (MODEL, 2, 2)
    assert (bill.input_tokens, bill.output_tokens, bill.cost) == (6, 8, 86)
    bill.write(tmp_path / "bill.json")
    assert Bill.read(tmp_path / "bill.json") == bill
    before, after = caplog.messages
    assert (
        "2 of 2 prompts to ask; about 2 tokens in (4 bytes each), at most 1,024 out: at most about 10,242.00" in before
    )
    assert "6 tokens in, 8 out, cost 86.0000" in after


@pytest.mark.slow
@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": 3}, "many"], ids=str)
def test_where_the_server_counts_no_tokens_they_are_estimated(serve, tmp_path, usage):
    serve(lambda prompt, _: answer(prompt, usage=usage))
    annotate(tmp_path, 1)
    bill = EndpointTeacher(model=MODEL).bill((), prompts(1), tmp_path / "ledger")
    assert (bill.input_tokens, bill.output_tokens) == (2, 6)


@pytest.mark.slow
def test_the_money_is_never_exceeded_and_what_was_bought_is_kept(serve, tmp_path):
    server = serve(seconds=0.005)
    settings = {"price_per_million": Price(0, 1e6), "max_tokens": 10}  # an answer costs 5, and at most 10
    with pytest.raises(ValueError, match=r"annotator.max_cost=103 does not suffice: 95.0000 is spent, and one more"):
        annotate(tmp_path, 50, max_cost=103, **settings)
    assert sum(server.answered.values()) == 19
    with pytest.raises(ValueError, match="31 of 50 prompts got no response"):  # what was spent before counts
        annotate(tmp_path, 50, max_cost=104, **settings)
    assert sum(server.answered.values()) == 19
    assert len(annotate(tmp_path, 50, max_cost=104, allow_partial=True, **settings)) == 19
    assert len(annotate(tmp_path, 50, max_cost=255, **settings)) == 50
    assert server.answered == dict.fromkeys(prompts(50), 1)


@pytest.mark.slow
def test_the_money_of_requests_under_way_is_put_aside(serve, tmp_path):
    server = serve(lambda prompt, _: answer(prompt, usage={"prompt_tokens": 0, "completion_tokens": 10}), seconds=0.05)
    with pytest.raises(ValueError, match="35 of 40 prompts"):
        annotate(tmp_path, 40, max_cost=55, price_per_million=Price(0, 1e6), max_tokens=10, concurrency=40)
    assert sum(server.answered.values()) == 5


def client(folder, num, environment, *settings):
    """Start a process that annotates; its answers are counted by the server."""
    code = (
        "import sys, pathlib; from aliquot.pools.spec import PoolSpec\n"
        "from aliquot.annotation.teachers.endpoint import EndpointTeacher\n"
        f"n = {num}; p = [f'prompt {{i}}' for i in range(n)]\n"
        f"t = EndpointTeacher(model={MODEL!r}, {', '.join(settings)})\n"
        "a = t.annotate(PoolSpec(name='any'), [f'id{i}' for i in range(n)], p, pathlib.Path(sys.argv[1]))\n"
        "print('answered', len(a))"
    )
    command = [sys.executable, "-c", code, str(folder / "ledger")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


def wait_for(server, num):
    deadline = time.monotonic() + 200  # a busy machine imports slowly
    while sum(server.answered.values()) < num:
        assert time.monotonic() < deadline, server.answered
        time.sleep(0.005)


@pytest.mark.slow
def test_a_kill_loses_none_but_those_under_way_and_pays_for_none_twice(serve, tmp_path):
    server = serve(seconds=0.05)
    for num in (40, 90):
        process = client(tmp_path, 200, server.environment)
        wait_for(server, num)
        process.kill()
        process.communicate()
    time.sleep(0.2)  # what was under way is answered to nobody
    with next((tmp_path / "ledger").glob("*.jsonl")).open("a") as file:
        file.write('{"prompt": "torn')
    assert len(annotate(tmp_path, 200)) == 200
    assert set(server.answered) == set(prompts(200))
    assert 200 <= sum(server.answered.values()) <= 200 + 2 * 8


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_requests_under_way_finish(serve, tmp_path, number):
    server = serve(seconds=0.3)
    process = client(tmp_path, 200, server.environment)
    wait_for(server, 16)
    process.send_signal(number)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT), output
    asked = sum(server.answered.values())
    assert len(server.requests) == asked < 100
    assert len(next((tmp_path / "ledger").glob("*.jsonl")).read_text().splitlines()) == asked
    server.seconds = 0
    annotate(tmp_path, 200)
    assert server.answered == dict.fromkeys(prompts(200), 1)


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(serve, tmp_path):
    server = serve(seconds=20)
    process = client(tmp_path, 8, server.environment)
    while len(server.requests) < 8:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.communicate(timeout=100)
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_two_processes_at_once_pay_for_no_prompt_twice(serve, tmp_path):
    server = serve(seconds=0.02)
    processes = [client(tmp_path, 60, server.environment), client(tmp_path, 90, server.environment)]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [output.splitlines()[-1] for output in outputs] == ["answered 60", "answered 90"]
    assert server.answered == dict.fromkeys(prompts(90), 1)


@pytest.mark.slow
def test_a_damaged_ledger_is_named_by_its_line(serve, tmp_path):
    server = serve()
    annotate(tmp_path, 3)
    file = next((tmp_path / "ledger").glob("*.jsonl"))
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text(first[:20] + "\n" + "".join(rest))
    with pytest.raises(ValueError, match=r"jsonl, line 1: no reply of a teacher .* delete it to ask again"):
        annotate(tmp_path, 3)
    file.write_text("".join(rest))
    annotate(tmp_path, 3)
    assert sum(server.answered.values()) == 4


@pytest.mark.slow
def test_a_disk_that_is_full_ends_the_run_and_leaves_a_ledger_to_go_on_from(serve, small_disk, tmp_path):
    server = serve()
    teacher = EndpointTeacher(model=MODEL)
    asked = [f"{i} " + 800 * "x" for i in range(200)]
    with pytest.raises(OSError, match="No space left"):
        teacher.annotate(SOURCE, prompts(200), asked, small_disk)
    num_asked = len(server.requests)
    file = next(small_disk.glob("*.jsonl"))
    (tmp_path / file.name).write_bytes(file.read_bytes())
    teacher.annotate(SOURCE, prompts(200), asked, tmp_path)
    assert len(server.requests) - 200 <= 9
    assert num_asked < 100


@pytest.mark.slow
def test_the_preflight_asks_for_no_answer(serve):
    server = serve()
    EndpointTeacher(model=MODEL).check(SOURCE)
    assert not server.requests
    server.models = ["somebody/else"]
    with pytest.raises(ValueError, match=f"annotator.model={MODEL} is unknown to the server; it has somebody/else"):
        EndpointTeacher(model=MODEL).check(SOURCE)
    server.models = None  # the server has no such list
    EndpointTeacher(model=MODEL).check(SOURCE)


@pytest.mark.parametrize(
    ("key", "message"),
    [("", "OPENAI_API_KEY is not set"), (f"{KEY}\n", "line breaks"), ("sk-wrong-key-1234567", "refuses the key: 401")],
)
def test_the_preflight_names_what_is_wrong_with_the_key_without_naming_it(serve, monkeypatch, key, message):
    serve()
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match=message) as caught:
        EndpointTeacher(model=MODEL).check(SOURCE)
    assert not key or key.strip() not in str(caught.value)


@pytest.mark.slow
def test_the_preflight_notices_a_server_that_is_not_there(serve, monkeypatch):
    serve().__exit__()
    with pytest.raises(ValueError, match="the server cannot be reached"):
        EndpointTeacher(model=MODEL).check(SOURCE)


@pytest.mark.parametrize(
    "settings",
    [
        *(
            {"max_cost": 1.0},
            {"max_cost": -1.0},
            {"concurrency": 0},
            {"attempts": 0},
            {"timeout": 0.0},
            {"max_tokens": 0},
        ),
        *({"temperature": -1.0}, {"token_limit": "tokens"}, {"requests_per_minute": 0.0}),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=f"annotator.{next(iter(settings))}="):
        EndpointTeacher(model=MODEL, **settings)


def test_without_the_client_one_command_is_named(monkeypatch):
    monkeypatch.setattr("aliquot.annotation.teachers.endpoint.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package openai, .* pip install 'aliquot\[teacher\]'"):
        EndpointTeacher(model=MODEL).check(SOURCE)


def test_results_of_before_reasoning_was_taken_off_stay_those_of_a_teacher_that_keeps_it():
    strip, keep = (key_fields(EndpointTeacher(model=MODEL, keep_reasoning=kept)) for kept in (False, True))
    assert strip == keep | {"keep_reasoning": False} and "keep_reasoning" not in keep


def test_an_error_that_is_a_mere_text_is_quoted(serve, tmp_path):
    serve(lambda prompt, _: (404, {"error": "no such model here"}, {}))
    with pytest.raises(ValueError, match="404 no such model here"):
        annotate(tmp_path, 1)
