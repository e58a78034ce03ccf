"""Budgets in money and tokens, from the command line to what was paid and trained on."""

from __future__ import annotations

import json

import pytest

from aliquot.config.schema import Limit, parse_limit
from aliquot.experiment.build import Parts, build
from aliquot.experiment.record import RunRecord
from aliquot.finetuning.examples import encode_examples
from aliquot.launch.plan import make_plan
from aliquot.models.spec import Model
from aliquot.report.reading import read_studies
from aliquot.types import AnnotatedSet
from fake_endpoint import MODEL

pytestmark = pytest.mark.filterwarnings("default")
TEACHER = ("annotator=teacher", f"annotator.model={MODEL}", "annotator.max_tokens=40")
PRICED = (*TEACHER, "annotator.price_per_million.input=100", "annotator.price_per_million.output=1000")


def parts_of(compose, tmp_path, *overrides):
    small = ["pool.limit=300", "tracker=none", f"store={tmp_path / 'store'}", "evaluate.limit=1"]
    return Parts.of(compose(*small, *overrides))


def record_of(tmp_path, ending):
    (path,) = tmp_path.glob(f"store/runs/*-{ending}/results.json")
    return RunRecord.read(path.parent)


def rows_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_money_buys_and_trains_on_what_it_pays_for(serve, run, tmp_path):
    pytest.importorskip("openai")
    server = serve()
    run(*PRICED, "strategy=random", "budget=1usd", "until=finetune")
    record = record_of(tmp_path, "1usd")
    assert record.limit == "1usd"
    assert 0.8 < record.annotation_cost <= 1
    assert record.budget == record.num_annotated == server.answered.total()
    chosen = rows_of(tmp_path / "store" / "runs" / record.id / "selected.jsonl")
    (file,) = tmp_path.glob("store/annotate/*/annotated.jsonl")
    assert [row["id"] for row in chosen] == [row["id"] for row in rows_of(file)]
    assert record.tokens_trained == token_lengths(Model("pkg://aliquot.demo/model"), rows_of(file)).sum()
    (stage,) = tmp_path.glob("store/select/*/stage.json")
    assert json.loads(stage.read_text())["depth"] >= record.budget, "the ranking is continued where it is too short"


def test_tokens_are_filled_exactly_and_the_record_says_so(run, tmp_path):
    """The oracle answers all, so the longest prefix of the ranking whose examples fit is known."""
    run("strategy=longest", "budget=0.9k_tokens", "until=finetune")
    record = record_of(tmp_path, "900_tokens")
    ranking = rows_of(tmp_path / "store" / "runs" / record.id / "selected.jsonl")
    (file,) = tmp_path.glob("store/annotate/*/annotated.jsonl")
    rows = rows_of(file)
    lengths = token_lengths(Model("pkg://aliquot.demo/model"), rows)
    assert [row["id"] for row in rows] == [row["id"] for row in ranking]
    assert record.tokens_trained == lengths.sum() <= 900
    (bill,) = tmp_path.glob("store/annotate/*/bill.json")
    why = json.loads(bill.read_text())
    assert why["spent"] == lengths.sum()
    assert int(why["why_left"].split()[-2]) > 900 - lengths.sum()


def token_lengths(model, rows):
    annotated = AnnotatedSet(*([row[name] for row in rows] for name in ("id", "prompt", "response")))
    return encode_examples(model, model.load_tokenizer(), annotated).lengths


@pytest.mark.slow
def test_rounds_spend_shares_of_the_limit_and_keep_what_was_bought(serve, run, tmp_path):
    pytest.importorskip("openai")
    server = serve()
    run(*PRICED, "strategy=mean_entropy", "budget=2usd", "rounds=2", "evaluate.limit=1")
    record = record_of(tmp_path, "2usd-in2")
    first, last = record.rounds
    assert first.cost <= 1 < last.cost <= 2
    assert record.budget == last.budget == server.answered.total() > first.budget
    bought = {
        len(rows): [row["id"] for row in rows] for rows in map(rows_of, tmp_path.glob("store/annotate/*/*ed.jsonl"))
    }
    assert bought[last.budget][: first.budget] == bought[first.budget]
    run(*PRICED, "strategy=mean_entropy", "budget=2usd", "rounds=2", "evaluate.limit=1")
    assert server.answered.total() == last.budget, "a second run buys nothing"
    (study,) = read_studies(tmp_path / "store")
    assert (study.unit, [cell.budget for cell in study.cells]) == ("usd", [2])
    assert study.cells[0].arm.parameters["rounds"] == 2
    assert study.cells[0].annotations.tokens == record.tokens_trained


def test_two_limits_share_the_pass_and_two_units_the_same_one(compose, tmp_path):
    settings = ("strategy=facility_location", *PRICED)
    limits = ["budget=1usd", "budget=2usd", "budget=9k_tokens"]
    experiments = [build(parts_of(compose, tmp_path, *settings, limit)) for limit in limits]
    plan = make_plan([stage for one in experiments for stage in one.stages], parts_of(compose, tmp_path).store)
    assert plan.num_distinct["score"] == 1
    assert plan.num_distinct["select"] == plan.num_distinct["annotate"] == 3
    assert [one.id.partition("-")[2] for one in experiments] == ["1usd", "2usd", "9000_tokens"]


def test_the_price_is_in_the_key_of_a_limit_in_money_only(compose, tmp_path):
    def keys(*overrides):
        return [stage.key for stage in build(parts_of(compose, tmp_path, "strategy=random", *overrides)).stages]

    dearer = "annotator.price_per_million.output=2000"
    assert keys(*PRICED, "budget=1usd") == keys(*PRICED, "budget=1usd")
    assert keys(*PRICED, "budget=1usd") != keys(*PRICED, "budget=1usd", dearer)
    for budget in ("budget=20", "budget=5k_tokens"):
        assert keys(*PRICED, budget) == keys(*PRICED, budget, dearer)


@pytest.mark.parametrize(
    ("typed", "limit"),
    [
        ("200usd", Limit(200, "usd")),
        (" 2.5 EUR ", Limit(2.5, "eur")),
        ("500k_tokens", Limit(500_000, "tokens")),
        ("1.5m_tokens", Limit(1_500_000, "tokens")),
        *((rows, None) for rows in ("45k", "1234", "50%", "all", "usd", "")),
    ],
)
def test_a_limit_is_read_as_it_is_written_and_a_number_of_prompts_is_none(typed, limit):
    assert parse_limit(typed) == limit
    assert limit is None or parse_limit(str(limit)) == limit


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["budget=5usdd"], "'usdd' is no unit of a budget; did you mean usd"),
        (["budget=5 dollars"], "'dollars' is no unit of a budget"),
        (["budget=0usd"], "buys nothing"),
        (["budget=-3eur"], "buys nothing"),
        (["budget=2.5_tokens"], "write 3_tokens"),
        (["budget=1_0usd"], "'1_0' is no number"),
        (["budget=5usd"], "Oracle has none .* the responses in the pool cost nothing"),
        (["budget=5usd", *TEACHER], "fake-teacher has none .* set annotator.price_per_million.input"),
        (["budget=5usd", "annotator=file", "annotator.folder=people"], "set annotator.price to that of one response"),
        (["budget=5usd", *TEACHER, "annotator.examples=2", "rounds=2"], "what examples cost is not known"),
        (["budget=5k_tokens", "annotator=file", "annotator.folder=people"], "nobody knows how long the responses"),
        (["budget=20", "cost_aware=true"], "nothing to weigh"),
        (["budget=5k_tokens", "cost_aware=true", "strategy=random"], "Random has no gains that add up"),
        (["budget=5k_tokens", "strategy/mode=distributed"], "needs to know the number of prompts"),
        (["budget=5k_tokens", "rounds=[10%,20%]"], "no division of budget=5k_tokens"),
        (["budget=5k_tokens", "rounds=[10,100%]"], "no division of budget=5k_tokens"),
        (["budget=5k_tokens", "rounds=[50%,50%,100%]"], "no division of budget=5k_tokens"),
        (["budget=5k_tokens", "rounds=0"], "no division of budget=5k_tokens"),
    ],
)
def test_a_budget_that_cannot_be_spent_is_told_before_anything_is_done(compose, tmp_path, overrides, says):
    with pytest.raises(ValueError, match=says):
        build(parts_of(compose, tmp_path, *overrides))
    assert not list(tmp_path.glob("store/*/*/bill.json"))


def test_people_are_asked_for_as_many_prompts_as_the_money_pays(run, tmp_path):
    people = ("annotator=file", f"annotator.folder={tmp_path / 'batch'}", "annotator.price=0.5", "annotator.double=0.4")
    settings = (*people, "strategy=random", "budget=10usd", "until=annotate")
    run(*settings)
    asked, twice = (rows_of(tmp_path / "batch" / f"to_annotate{second}.jsonl") for second in ("", "_second"))
    assert 9 < 0.5 * (len(asked) + len(twice)) <= 10
    for rows, place in ((asked, ""), (twice, "second")):
        folder = tmp_path / "batch" / "returned" / place
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"id": row["id"], "response": f"yes {row['id']}"}) for row in rows]
        (folder / "answers.jsonl").write_text("\n".join(lines))
    run(*settings)
    record = record_of(tmp_path, "10usd")
    assert record.budget == record.num_annotated == len(asked)
    assert record.annotation_cost == 0.5 * (len(asked) + len(twice))
