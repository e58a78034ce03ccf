"""What a teacher is shown before a question, beside a brute-force search in float64, on a real server."""

import hashlib
import json
import time

import numpy as np
import pytest

from aliquot.annotation.teachers.examples import nearest
from aliquot.annotation.teachers.ledger import Question
from aliquot.config.schema import ROOT
from aliquot.evaluation.judge.spec import JudgeModel
from aliquot.experiment.build import Parts, build
from aliquot.experiment.quote import quote
from aliquot.report.analysis.comparability import setting_of
from aliquot.store.store import canonical
from command_line import Command
from fake_endpoint import MODEL, answer

pytest.importorskip("openai", reason="the client of teachers is not installed")
pytestmark = pytest.mark.filterwarnings("default")
TEACHER = ("annotator=teacher", f"annotator.model={MODEL}", "budget=18", "until=annotate")
SHOWN = (*TEACHER, "annotator.examples=3", "rounds=3")


def experiment(compose, tmp_path, *overrides):
    parts = Parts.of(compose("pool.limit=300", "tracker=none", f"store={tmp_path / 'store'}", *overrides))
    return build(parts), parts.store


def by_brute_force(features, row, known, k):
    """The k nearest of the known rows by cosine in float64, of equal ones the lower; the nearest is last."""
    x = np.asarray(features, dtype=np.float64)

    def cosine(other):
        lengths = np.linalg.norm(x[row]) * np.linalg.norm(x[other])
        return float(x[row] @ x[other] / lengths) if lengths else 0.0

    return sorted(known, key=lambda other: (-round(cosine(other), 12), other))[:k][::-1]


def expected(done, store, k, left_out=()):
    """Prompt -> the texts of its conversation, from the selections, the base model's features and what was answered."""
    wanted, known = {}, []
    for one in done.rounds:
        pool, features = store.get(one.select.pool), store.get(done.rounds[-1].annotate.score).features
        rows = store.get(one.select).head(one.budget).indices.tolist()
        for row in rows:
            shown = [pool.prompts[i] for i in by_brute_force(features, row, known, k)]
            texts = [text for prompt in shown for text in (prompt, f"the answer to {prompt}")]
            wanted.setdefault(pool.prompts[row], [*texts, pool.prompts[row]])
        known = [row for row in rows if pool.prompts[row] not in left_out]
    return wanted


def sent(server):
    return {prompt: [message["content"] for message in body["messages"]] for _, prompt, body in server.requests}


def test_the_nearest_rows_are_those_of_a_search_through_all_whatever_the_blocks(monkeypatch):
    draw = np.random.default_rng(0)
    features = draw.standard_normal((60, 5)).astype(np.float16)
    features[[7, 31, 50]] = features[3]  # ties
    features[[11, 40]] = 0
    rows = draw.permutation(60)
    known, asked = rows[:40], rows[40:]
    for numbers in (1 << 24, 90):
        monkeypatch.setattr("aliquot.annotation.teachers.examples._NUMBERS", numbers)
        for k in (1, 4, 40, 99):
            found = nearest(features, asked, known, k)
            assert found == [by_brute_force(features, row, known.tolist(), k) for row in asked]
    assert nearest(features, asked, known[:0], 4) == [[]] * 20
    features[known[0], 0] = np.nan
    with pytest.raises(ValueError, match="1 of 40 prompts hold NaN"):
        nearest(features, asked, known, 4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["k_center", "random"])
def test_every_round_sends_the_nearest_of_the_rounds_before_and_nothing_is_paid_for_twice(
    serve, run, compose, tmp_path, strategy
):
    server, settings = serve(), (*SHOWN, f"strategy={strategy}")
    run(*settings)
    wanted = expected(*experiment(compose, tmp_path, *settings), k=3)
    assert sent(server) == wanted
    assert sorted(len(texts) for texts in wanted.values()) == [1] * 6 + [7] * 12
    roles = {tuple(message["role"] for message in body["messages"]) for *_, body in server.requests}
    assert roles == {("user",), ("user", "assistant") * 3 + ("user",)}
    run(*settings)
    assert len(server.requests) == 18
    run(*settings, "annotator.examples=2")  # other questions, but for those of the first round
    assert len(server.requests) == 18 + 12


@pytest.mark.slow
def test_what_was_left_out_is_shown_to_nobody_and_fewer_are_shown_where_there_are_fewer(serve, run, compose, tmp_path):
    left_out = []

    def often_empty(prompt, attempt):
        left_out.extend([prompt] * (len(prompt) % 3 == 0))
        return answer(prompt, content="") if len(prompt) % 3 == 0 else answer(prompt)

    server, settings = serve(often_empty), (*TEACHER, "strategy=random", "annotator.examples=99", "rounds=2")
    run(*settings)
    wanted = expected(*experiment(compose, tmp_path, *settings), k=99, left_out=left_out)
    assert sent(server) == wanted
    assert 1 < max(map(len, wanted.values())) < 1 + 2 * 9


@pytest.mark.slow
def test_equal_prompts_are_one_question_and_never_each_others_example(serve, run, compose, tmp_path):
    file = tmp_path / "twins.jsonl"
    rows = [{"id": f"{i}", "prompt": f"how many are {i % 7} and {i % 7}?"} for i in range(14)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = serve()
    pool = ("pool=jsonl", f"pool.path={file}", "pool.clean.exact=false", "strategy=random")
    run(*SHOWN, *pool, "pool.limit=null", "budget=14", "rounds=[5,14]")
    assert len(server.requests) == len(sent(server)) == 7
    assert all(texts.count(prompt) == 1 for prompt, texts in sent(server).items())


@pytest.mark.slow
def test_a_killed_run_asks_the_same_questions_and_only_those_under_way_again(serve, run, compose, tmp_path):
    server, settings = serve(), (*SHOWN, "strategy=random", "annotator.concurrency=1")
    server.behave = lambda prompt, _: time.sleep(0.3) or answer(prompt)
    places = ("pool.limit=300", "tracker=none", f"store={tmp_path / 'store'}")
    process = Command("run.py", *settings, *places, cwd=ROOT)
    deadline = time.monotonic() + 250
    while len(server.requests) < 10:
        assert process.poll() is None and time.monotonic() < deadline, process.errors()
        time.sleep(0.01)
    process.send_signal(9)
    process.wait()
    server.behave = lambda prompt, _: answer(prompt)
    run(*settings)
    assert sent(server) == expected(*experiment(compose, tmp_path, *settings), k=3)
    assert 18 <= len({json.dumps(body["messages"]) for *_, body in server.requests}) <= len(server.requests) <= 19


@pytest.mark.slow
def test_bills_and_quotes_count_the_examples(serve, run, compose, tmp_path):
    server = serve(lambda prompt, _: answer(prompt, usage=None))
    prices = ("annotator.price_per_million.input=1e6", "annotator.price_per_million.output=1e6")
    settings = (*SHOWN, "strategy=random", "annotator.max_tokens=12", *prices)
    before, store = experiment(compose, tmp_path, *settings)
    quoted = quote([before], store)
    run(*settings)
    bill = before.rounds[-1].annotate.bill(store)
    read = [-(-len(text.encode()) // 4) for texts in sent(server).values() for text in texts]
    assert bill.input_tokens == sum(read)
    plain, _ = experiment(compose, tmp_path / "plain", *settings, "annotator.examples=0")
    assert quote([plain], store) < bill.cost < quoted


def test_the_first_round_and_a_teacher_without_examples_have_the_keys_that_they_had(compose, tmp_path):
    shown, plain, once = (
        experiment(compose, tmp_path, *TEACHER, "strategy=mean_entropy", *more)[0].rounds
        for more in (SHOWN, ("rounds=3",), ("budget=6",))
    )
    assert shown[0].annotate.key == plain[0].annotate.key == once[0].annotate.key
    assert shown[0].finetune.key == once[0].finetune.key
    assert {one.annotate.key for one in shown[1:]}.isdisjoint(one.annotate.key for one in plain)
    assert "examples" not in json.dumps(canonical(plain[-1].annotate.inputs()))
    assert Question("a", "why?").key == hashlib.sha256(b"why?").hexdigest()[:32]


def test_runs_with_examples_are_of_one_study_unless_they_show_another_number(compose, tmp_path):
    def setting(*overrides):
        last = experiment(compose, tmp_path, *SHOWN, *overrides)[0].rounds[-1]
        stages = (last.evaluate, last.finetune, last.annotate, last.select)
        return setting_of(*({"stage": s.name, "version": s.version, "fields": canonical(s.inputs())} for s in stages))

    alike = [
        setting(f"strategy={name}", f"seed={seed}") for name, seed in (("random", 0), ("random", 1), ("k_center", 0))
    ]
    assert alike[0] == alike[1] == alike[2]
    assert setting("strategy=random", "annotator.examples=2") != alike[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("rounds=1",), r"annotator.examples=3 .* rounds=1 has no earlier round; set rounds=2"),
        (("annotator.examples=-1",), r"annotator.examples=-1 is below 0; give 0 or more"),
        (("annotator.examples=1.5",), r"annotator.examples=1.5 is float; it must be int"),
    ],
)
def test_examples_that_cannot_be_shown_are_refused(compose, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        experiment(compose, tmp_path, *SHOWN, *overrides)


def test_a_judge_is_shown_no_examples():
    with pytest.raises(ValueError, match=r"evaluate.judge.examples=2: a judge is asked about each pair alone"):
        JudgeModel(model=MODEL, examples=2)
