"""Buying down a ranking with money or tokens, against a server and against one row at a time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from aliquot.annotation.annotator import Annotator
from aliquot.annotation.bill import Price
from aliquot.annotation.teachers.endpoint import EndpointTeacher
from aliquot.config.schema import Limit
from aliquot.terms import buy_for_money, buy_for_tokens
from fake_endpoint import MODEL, answer

pytest.importorskip("openai", reason="the client of teachers is not installed")
IDS = [f"q{i}" for i in range(60)]
PROMPTS = [f"What is {i} times {i + 1}?" + " Say why." * (i % 5) for i in range(60)]
TEACHER = EndpointTeacher(model=MODEL, max_tokens=50, price_per_million=Price(100, 1000), concurrency=8)


def drawn(prompt, attempt=0):
    """Answer with a number of tokens that only the prompt decides, up to the most that is allowed."""
    lot = int(hashlib.sha256(prompt.encode()).hexdigest(), 16)
    usage = {"prompt_tokens": len(prompt) + lot % 64, "completion_tokens": 1 + lot // 64 % 50, "total_tokens": 0}
    return answer(prompt, usage=usage)


def cost(prompt):
    usage = drawn(prompt)["usage"]
    return TEACHER.price_per_million.of(usage["prompt_tokens"], usage["completion_tokens"])


def one_by_one(limit, most):
    """Buy row after row while what the rows before have cost and the most of the next fit."""
    spent = 0.0
    for i, prompt in enumerate(PROMPTS):
        if spent + most[i] > limit * (1 + 1e-9):
            return i
        spent += cost(prompt)
    return len(PROMPTS)


@pytest.mark.parametrize("limit", [0.12, 0.5, 1.0, 1.7, 99])
def test_waves_buy_the_rows_that_are_bought_one_by_one_and_never_pay_more_than_the_limit(serve, tmp_path, limit):
    server = serve(drawn, seconds=0.002)
    bought = buy_for_money(TEACHER, IDS, PROMPTS, tmp_path, Limit(limit, "usd"))
    assert bought.num_rows == one_by_one(limit, TEACHER.most(IDS, PROMPTS))
    assert set(server.answered) == set(PROMPTS[: bought.num_rows]), "nothing is bought that is not used"
    assert server.answered.total() == bought.num_rows
    assert bought.spent == pytest.approx(sum(map(cost, PROMPTS[: bought.num_rows])))
    assert bought.spent <= limit
    assert TEACHER.bill(IDS[: bought.num_rows], PROMPTS[: bought.num_rows], tmp_path).cost == pytest.approx(
        bought.spent
    )
    assert bool(bought.why) == (bought.num_rows < len(IDS))


def test_a_run_killed_between_waves_or_within_one_ends_with_the_rows_of_one_that_was_not(serve, tmp_path, monkeypatch):
    server = serve(drawn)
    expected = one_by_one(1.0, TEACHER.most(IDS, PROMPTS))
    for waves in (1, 2, 4):
        left = iter(range(waves))

        def buy(self, ids, prompts, ledger, left=left):
            if next(left, None) is None:
                half = len(ids) // 2  # of this wave is there when the process dies
                EndpointTeacher.buy(TEACHER, ids[:half], prompts[:half], ledger)
                raise KeyboardInterrupt
            EndpointTeacher.buy(TEACHER, ids, prompts, ledger)

        killed = type("Killed", (EndpointTeacher,), {"buy": buy})(**vars(TEACHER))
        monkeypatch.setattr(killed.__class__, "ledger", lambda self, folder: TEACHER.ledger(folder))
        with pytest.raises(KeyboardInterrupt):
            buy_for_money(killed, IDS, PROMPTS, tmp_path, Limit(1.0, "usd"))
        assert sum(cost(prompt) for prompt in server.answered) <= 1.0
    assert buy_for_money(TEACHER, IDS, PROMPTS, tmp_path, Limit(1.0, "usd")).num_rows == expected
    assert server.answered == dict.fromkeys(PROMPTS[:expected], 1)


def test_answers_that_existed_before_change_nothing(serve, tmp_path):
    serve(drawn)
    TEACHER.buy(IDS[::3], PROMPTS[::3], tmp_path)
    bought = buy_for_money(TEACHER, IDS, PROMPTS, tmp_path, Limit(1.0, "usd"))
    assert bought.num_rows == one_by_one(1.0, TEACHER.most(IDS, PROMPTS))


def test_an_unreadable_answer_that_was_paid_for_twice_stays_within_the_limit(serve, tmp_path):
    def unreadable(prompt, attempt):
        return drawn(prompt) | {"choices": []} if len(prompt) % 2 else drawn(prompt)

    server = serve(unreadable)
    buy_for_money(TEACHER, IDS, PROMPTS, tmp_path, Limit(1.0, "usd"))
    assert max(server.answered.values()) == 2
    assert sum(number * cost(prompt) for prompt, number in server.answered.items()) <= 1.0


def test_an_unanswered_prompt_keeps_the_most_it_can_cost_and_may_be_answered_later(serve, tmp_path):
    refused = set(PROMPTS[12:28:4])

    def refuse(prompt, attempt):
        return (400, {"error": {"message": "no", "code": "bad"}}, {}) if prompt in refused else drawn(prompt)

    serve(refuse)
    with pytest.raises(ValueError, match="got no response"):
        buy_for_money(TEACHER, IDS, PROMPTS, tmp_path, Limit(1.0, "usd"))
    partial = replace(TEACHER, allow_partial=True)
    bought = buy_for_money(partial, IDS, PROMPTS, tmp_path, Limit(1.0, "usd"))
    refused.clear()
    partial.buy(IDS[: bought.num_rows], PROMPTS[: bought.num_rows], tmp_path)
    assert sum(map(cost, PROMPTS[: bought.num_rows])) <= 1.0


def test_a_prompt_that_stands_twice_is_paid_once(serve, tmp_path):
    serve(drawn)
    bought = buy_for_money(TEACHER, ["a", "b"], PROMPTS[:1] * 2, tmp_path, Limit(1, "usd"))
    assert bought.spent == pytest.approx(cost(PROMPTS[0]))


def test_answers_keep_the_price_at_which_they_were_bought(serve, tmp_path, caplog):
    serve(drawn)
    caplog.set_level("INFO")
    TEACHER.buy(IDS[:10], PROMPTS[:10], tmp_path)
    dearer = replace(TEACHER, price_per_million=Price(200, 2000))
    dearer.annotate(None, IDS[:20], PROMPTS[:20], tmp_path)  # pyright: ignore[reportArgumentType]
    assert "10 of 20 answers were bought at another price and keep it, such as 100 in and 1000 out" in caplog.text
    costs = np.array([cost(prompt) for prompt in PROMPTS[:20]])
    assert dearer.paid(IDS[:20], PROMPTS[:20], tmp_path) == pytest.approx([*costs[:10], *2 * costs[10:]])
    assert TEACHER.bill(IDS[:20], PROMPTS[:20], tmp_path).cost == pytest.approx(costs[:10].sum() + 2 * costs[10:].sum())


def test_answers_without_a_price_in_the_ledger_cost_what_they_would_cost_today(serve, tmp_path):
    serve(drawn)
    replace(TEACHER, price_per_million=Price()).buy(IDS[:5], PROMPTS[:5], tmp_path)
    book = TEACHER.ledger(tmp_path).path
    lines = [json.loads(line) for line in book.read_text().splitlines()]
    for line in lines[:2]:
        del line["price"]  # of an older version
    book.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert TEACHER.paid(IDS[:5], PROMPTS[:5], tmp_path) == pytest.approx([cost(prompt) for prompt in PROMPTS[:5]])


def test_a_limit_that_pays_no_response_says_what_one_can_cost(serve, tmp_path):
    server = serve(drawn)
    with pytest.raises(ValueError, match=r"budget=0.01usd does not pay one response .* up to 0.\d+; raise the budget"):
        buy_for_money(TEACHER, IDS, PROMPTS, tmp_path, Limit(0.01, "usd"))
    assert not server.requests


class Counted(Annotator):
    """Answers with as many words as the place of the prompt says; records what is asked."""

    name = "counted"

    def __init__(self, lengths, at_once, silent=()):
        self.lengths, self.at_once, self.silent, self.asked = lengths, at_once, silent, []

    def buy(self, ids, prompts, ledger):
        self.asked += ids

    def answered(self, source, ids, prompts, ledger):
        return {i: "w " * self.lengths[int(i[1:])] for i in ids if i not in self.silent}


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("limit", [40, 137, 500, 10_000])
def test_tokens_hold_the_longest_prefix_of_examples_that_fits(tmp_path, at_once, limit):
    lengths = np.random.default_rng(limit).integers(1, 40, size=60)
    annotator = Counted(lengths, at_once, silent={"q3", "q9"})
    usable = np.where(np.isin(np.arange(60), [3, 9]), 0, lengths)
    bought = buy_for_tokens(
        annotator,
        None,
        IDS,
        PROMPTS,
        tmp_path,
        Limit(limit, "tokens"),
        np.full(60, 10.0),
        words,  # pyright: ignore
    )
    fitting = int((np.cumsum(usable) <= limit).sum())
    assert bought.num_trained == fitting or usable[bought.num_trained :].sum() == 0
    assert bought.spent == usable[: bought.num_trained].sum() <= limit
    assert len(annotator.asked) == len(set(annotator.asked))
    if not at_once:
        assert bought.num_rows - bought.num_trained <= 12, "few responses are bought that do not fit"


def words(rows):
    return np.array([len(response.split()) for response in rows.responses])
