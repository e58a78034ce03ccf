"""A judge behind a real HTTP server: fair, biased, unreadable, contradictory, and paid for once."""

import json
import re
from dataclasses import replace

import pytest

from aliquot.evaluation.held_out.source import HeldOutRows
from aliquot.evaluation.judge.run import JudgedPair, compare_responses, read_responses, summary, write_rows
from aliquot.evaluation.judge.spec import Judge, JudgeModel, fill, worth_to_a
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.stages import Evaluate
from fake_endpoint import MODEL, answer

pytest.importorskip("openai", reason="the client of teachers is not installed")

CPU = TrainerSpec("cpu")
ANSWERS = re.compile(r"\[Answer A\]\n(.*?)\n\n\[Answer B\]\n(.*?)\n\nThink", re.DOTALL)


@pytest.fixture
def serve_judge(serve):
    """Start a server that answers with what `verdict` makes of answers A and B."""
    return lambda verdict: serve(lambda prompt, _: answer(prompt, content=verdict(*ANSWERS.search(prompt).groups())))


def longer(a, b):
    """Judge by length, in words before the verdict."""
    return f"A has {len(a)}, B {len(b)} letters.\n[[{'A' if len(a) > len(b) else 'B' if len(b) > len(a) else 'tie'}]]"


def spec(tmp_path, num=4, **settings):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", "prompt": f"prompt {i}"}) + "\n" for i in range(num)))
    judge = {name.removeprefix("judge_"): settings.pop(name) for name in list(settings) if name.startswith("judge_")}
    return Judge(str(path), judge=JudgeModel(model=MODEL, **judge), **settings)


def rows(num=4):
    names = [f"r{i}" for i in range(num)]
    return HeldOutRows(names, None, [f"prompt {i}" for i in range(num)], [None] * num, [None] * num)


OURS = ["long answer", "x", "same", "abc"]
THEIRS = ["short", "a longer one", "same", "cba"]


def test_every_pair_is_asked_in_both_orders_and_equal_responses_not_at_all(serve_judge, tmp_path):
    server = serve_judge(longer)
    found = compare_responses(spec(tmp_path), rows(), OURS, THEIRS, tmp_path / "ledger")
    assert [each.value for each in found] == [1.0, 0.0, 0.5, 0.5]
    pairs = sorted(ANSWERS.search(prompt).groups() for prompt in server.prompts)
    different = [(o, t) for o, t in zip(OURS, THEIRS, strict=True) if o != t]
    assert pairs == sorted([*different, *((t, o) for o, t in different)])
    assert summary(found) == {"num_equal": 1, "num_contradictory": 0, "num_unreadable": 0, "num_asked": 6}


def test_a_judge_that_prefers_a_place_gives_ties_and_is_told_of(serve_judge, tmp_path):
    serve_judge(lambda a, b: "The first is better.\n[[A]]")
    found = compare_responses(spec(tmp_path), rows(), OURS, THEIRS, tmp_path / "ledger")
    assert [each.value for each in found] == [0.5] * 4
    assert summary(found)["num_contradictory"] == 3


def test_replies_are_kept_and_never_paid_for_twice(serve_judge, tmp_path):
    server = serve_judge(longer)
    first = compare_responses(spec(tmp_path), rows(), OURS, THEIRS, tmp_path / "ledger")
    assert compare_responses(spec(tmp_path), rows(), OURS, THEIRS, tmp_path / "ledger") == first
    compare_responses(spec(tmp_path), rows(), [*OURS[:3], "something new"], THEIRS, tmp_path / "ledger")
    assert len(server.requests) == 6 + 2
    assert set(server.answered.values()) == {1}


def test_a_few_replies_without_a_verdict_are_ties_and_counted(serve_judge, tmp_path):
    serve_judge(lambda a, b: "Hard to say." if a == "long answer" else longer(a, b))
    found = compare_responses(spec(tmp_path), rows(), OURS, THEIRS, tmp_path / "ledger")
    assert found[0].verdicts == [None, 1.0]
    assert found[0].value == 0.75
    assert summary(found)["num_unreadable"] == 1


def test_a_judge_that_talks_nonsense_is_an_error_in_one_line_that_quotes_it(serve_judge, tmp_path):
    serve_judge(lambda a, b: "I am\na teapot")
    with pytest.raises(ValueError, match=r"6 of 6 replies .* 'I am a teapot'; .*\[\[A\]\]") as error:
        compare_responses(spec(tmp_path), rows(), OURS, THEIRS, tmp_path / "ledger")
    assert "\n" not in str(error.value)


def test_too_little_money_names_the_judges_own_setting(serve_judge, tmp_path):
    from aliquot.annotation.bill import Price

    server = serve_judge(longer)
    poor = spec(tmp_path, judge_max_cost=1e-3, judge_price_per_million=Price(1.0, 1.0))
    with pytest.raises(ValueError, match=r"evaluate\.judge\.max_cost=0\.001"):
        compare_responses(poor, rows(), OURS, THEIRS, tmp_path / "ledger")
    assert len(server.requests) < 6


@pytest.mark.parametrize(
    ("said", "worth"),
    [
        ("Fine.\n[[A]]", 1.0),
        ("[[b]]", 0.0),
        ("so [[ TIE ]]", 0.5),
        ("At first [[A]] seems better, but:\n[[B]].", 0.0),
        ("**[[A]]**", 1.0),
        ("[[A]] would be right if", None),
        ("A", None),
        ("", None),
        ("[[C]]", None),
    ],
)
def test_a_verdict_counts_only_at_the_end_of_a_reply(said, worth):
    assert worth_to_a(said) == worth


def test_a_reply_that_was_cut_or_refused_is_no_verdict(serve_judge, tmp_path):
    finish = {"long answer": "length", "short": "content_filter"}
    server = serve_judge(longer)
    whole = server.behave
    server.behave = lambda prompt, attempt: (
        whole(prompt, attempt)
        | {
            "choices": [
                {**whole(prompt, attempt)["choices"][0], "finish_reason": finish.get(ANSWERS.search(prompt)[1], "stop")}
            ]
        }
    )
    found = compare_responses(spec(tmp_path), rows(), OURS, THEIRS, tmp_path / "ledger")
    assert found[0].verdicts == [None, None]
    assert summary(found)["num_unreadable"] == 2


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\n", '"'])
def test_responses_with_any_line_break_are_read_back(tmp_path, odd):
    said = [f"one{odd}two", "x", "y", "z"]
    write_rows(rows(), [JudgedPair(text, text) for text in said], tmp_path / "rows.jsonl")
    assert read_responses(tmp_path / "rows.jsonl", rows()) == said


def test_responses_to_other_prompts_are_refused_though_the_ids_agree(tmp_path):
    write_rows(rows(), [JudgedPair("x", "x")] * 4, tmp_path / "rows.jsonl")
    others = replace(rows(), prompts=["prompt 0", "prompt 1", "prompt 2", "another"])
    with pytest.raises(ValueError, match="responses to 4 rows, which are not these 4"):
        read_responses(tmp_path / "rows.jsonl", others)
    with pytest.raises(ValueError, match="which are not these 3"):
        read_responses(tmp_path / "rows.jsonl", rows(3))


def test_the_base_models_responses_do_not_depend_on_the_judge(tmp_path):
    base = lambda **settings: Evaluate(Model("pkg://aliquot.demo/model"), None, spec(tmp_path, **settings), CPU)  # noqa: E731
    (tmp_path / "mine.txt").write_text("{prompt} {a} {b}")
    other = base(judge_temperature=0.5, prompt_file=str(tmp_path / "mine.txt"))
    assert base().key == other.key != base(max_new_tokens=9).key
    assert replace(base(), opponent="x").key != replace(other, opponent="x").key


def test_what_a_model_wrote_cannot_stand_for_a_slot(tmp_path):
    text = fill(spec(tmp_path).template(), "Say {a}", "{b}", "{prompt}")
    assert "Say {a}" in text
    assert "[Answer A]\n{b}\n" in text
    assert "[Answer B]\n{prompt}\n" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_file": "nowhere.txt"}, r"evaluate\.prompt_file=nowhere\.txt: .* not a file"),
        ({"max_new_tokens": None}, r"evaluate\.max_new_tokens=null"),
        ({"judge_temperature": -1.0}, r"evaluate\.judge\.temperature=-1\.0"),
        ({"judge_max_cost": 1.0}, r"evaluate\.judge\.max_cost=1\.0 .* evaluate\.judge\.price_per_million"),
        ({"judge_attempts": 0}, r"evaluate\.judge\.attempts=0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        spec(tmp_path, **settings).template()


def test_a_prompt_of_ones_own_needs_all_slots(tmp_path):
    (tmp_path / "mine.txt").write_text("Compare {a} and {c}")
    with pytest.raises(ValueError, match=r"mine\.txt lacks \{prompt\}, \{b\}; "):
        spec(tmp_path, prompt_file=str(tmp_path / "mine.txt")).template()


@pytest.mark.slow
def test_a_run_wins_against_the_base_model_and_another_run_against_it(serve_judge, run, tmp_path, capsys):
    from aliquot.demo import HELD_OUT

    server = serve_judge(longer)
    path = tmp_path / "own.jsonl"
    path.write_text("".join(HELD_OUT.read_text().splitlines(keepends=True)[:40:4]))
    asked = ["strategy=random", "evaluate=judge", f"evaluate.path={path}", f"evaluate.judge.model={MODEL}",
             "evaluate.max_new_tokens=8"]  # fmt: skip
    won = run(*asked)
    (first,) = (tmp_path / "store" / "runs").glob("*/results.json")
    record = json.loads(first.read_text())
    (metric,) = record["finetuned"]
    assert (metric["name"], metric["num_questions"], metric["value"]) == ("win_rate", 10, pytest.approx(won))
    assert record["base"][0]["value"] == 0.5
    assert "win rate, %" in capsys.readouterr().out
    key = next(key for name, key, _ in record["stages"] if name == "evaluate finetuned")
    lines = [json.loads(line) for line in (tmp_path / "store/evaluate" / key / "rows.jsonl").read_text().splitlines()]
    by_length = [0.5 + 0.5 * ((len(x["response"]) > len(x["against"])) - (len(x["response"]) < len(x["against"])))
                 for x in lines]  # fmt: skip
    assert [line["win_rate"] for line in lines] == by_length
    num_asked = len(server.requests)
    assert run(*asked) == won
    assert len(server.requests) == num_asked
    run(*asked, "seed=1", f"evaluate.against={first.parent.name}")
    (second,) = (r for r in (tmp_path / "store" / "runs").glob("*/results.json") if r != first)
    keys = {name: key for name, key, _ in json.loads(second.read_text())["stages"]}
    for name in ("evaluate base", "evaluate finetuned"):  # both models are compared with that run
        file = tmp_path / "store/evaluate" / keys[name] / "rows.jsonl"
        theirs = [json.loads(line)["against"] for line in file.read_text().splitlines()]
        assert theirs == [line["response"] for line in lines]
    benchmark = run("strategy=random", "budget=20")
    assert 0 <= benchmark <= 1
    (lm_eval,) = (r for r in (tmp_path / "store" / "runs").glob("*/results.json") if r not in (first, second))
    with pytest.raises(ValueError, match=r"evaluate\.against: .* is not there, .* evaluate=judge"):
        run(*asked, "seed=2", f"evaluate.against={lm_eval.parent.name}")
    with pytest.raises(ValueError, match=r"evaluate\.against=nowhere: .* report --runs"):
        run(*asked, "evaluate.against=nowhere")


@pytest.mark.slow
def test_a_plan_says_what_all_comparisons_cost_at_most(serve_judge, run, tmp_path, capsys):
    serve_judge(longer)
    judged = spec(tmp_path)
    asked = ["evaluate=judge", f"evaluate.path={judged.path}", f"evaluate.judge.model={MODEL}", "check=true",
             "evaluate.judge.price_per_million.input=0", "evaluate.judge.price_per_million.output=1000"]  # fmt: skip
    most = 2 * 4 * judged.judge.max_tokens * 1000 / 1e6
    run("strategy=random", *asked)
    assert f"at most about {most:.2f}, " in capsys.readouterr().out
    run("strategy=random", *asked, "evaluate.judge.max_cost=0.5")
    assert "at most about 0.50, " in capsys.readouterr().out
