"""Rounds against a loop written by hand, what they share, and what interrupts them."""

from __future__ import annotations

import numpy as np
import pytest

import aliquot.experiment.run
from aliquot.experiment.build import Parts, build
from aliquot.experiment.record import RunRecord
from aliquot.experiment.rounds import parse_rounds
from aliquot.finetuning.adapter import load_finetuned
from aliquot.finetuning.run import finetune
from aliquot.launch.plan import make_plan
from aliquot.report.reading import read_studies
from aliquot.scoring.run import load_scores, score
from aliquot.selection.strategy import Learner, rank
from aliquot.types import AnnotatedSet, Bought

pytestmark = pytest.mark.filterwarnings("default")
IN_ROUNDS = ("rounds=3", "budget=30")


def finished(tmp_path):
    return {str(path.parent.relative_to(tmp_path / "store")) for path in tmp_path.glob("store/*/*/stage.json")}


def count(tmp_path, stage):
    return len(list(tmp_path.glob(f"store/{stage}/*/stage.json")))


def only_run(tmp_path, ending=""):
    (path,) = [path for path in tmp_path.glob("store/runs/*/results.json") if path.parent.name.endswith(ending)]
    return RunRecord.read(path.parent)


def experiment(compose, tmp_path, *overrides):
    small = ["pool.limit=300", "tracker=none", f"store={tmp_path / 'store'}", "evaluate.limit=1"]
    return build(Parts.of(compose(*small, *overrides)))


def response_losses(network, tokenizer, model, prompts, responses):
    """Mean nats per response token, one row at a time, with nothing of ours but the template."""
    import torch

    found = []
    for prompt, response in zip(prompts, responses, strict=True):
        before, after = model.template.replace("{prompt}", prompt).split("{response}")
        prefix = tokenizer(before.rstrip(" "))["input_ids"]
        whole = tokenizer(before + response + after)["input_ids"]
        ids = whole if whole[-1] == tokenizer.eos_token_id else [*whole, tokenizer.eos_token_id]
        with torch.inference_mode():
            nats = torch.log_softmax(network(torch.tensor([ids])).logits[0].double(), -1)
        found.append(-np.mean([nats[i - 1, ids[i]].item() for i in range(len(prefix), len(ids))]))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice", ["mean_entropy", "facility_location", "allocation", "weighted_task_diversity", "random"]
)
def test_rounds_equal_a_loop_of_single_runs_bit_for_bit(run, compose, tmp_path, choice):
    settings = (f"strategy={choice}", *IN_ROUNDS)
    run(*settings, "evaluate.limit=1")
    done, store = experiment(compose, tmp_path, *settings), Parts.of(compose(f"store={tmp_path / 'store'}")).store
    select = done.rounds[0].select
    pool, strategy, model = store.get(select.pool), select.strategy, done.model
    scorer, recipe, trainer = done.trial.scorer, done.rounds[0].finetune.recipe, done.trial.trainer
    source = select.pool.source
    selection, adapter, bought, scores = None, None, None, None
    needs = bool(strategy.requires - {"tasks"})
    learns = isinstance(strategy, Learner) and strategy.learns
    for number, k in enumerate((10, 20, 30)):
        directory = tmp_path / f"by hand {number}"
        if needs and (number == 0 or not learns):
            load = (lambda adapter=adapter: load_finetuned(model, adapter)) if adapter else None
            score(model, pool, scorer, trainer, directory / "scores", load)
            scores = load_scores(directory / "scores")
        chooser = strategy.after(bought) if learns and bought else strategy
        selection = rank(chooser, pool, scores, k, selection)
        ids = [pool.ids[i] for i in selection.indices]
        given = source.read_responses(ids)
        annotated = AnnotatedSet(ids, [pool.prompts[i] for i in selection.indices], [given[i] for i in ids])
        if learns:
            network = load_finetuned(model, adapter) if adapter else model.load()
            old = len(bought) if bought else 0
            new = annotated.only(range(old, k))
            losses = response_losses(network.eval(), model.load_tokenizer(), model, new.prompts, new.responses)
            stored = store.get(done.rounds[number].bought)
            np.testing.assert_allclose(stored.loss[old:], losses, rtol=1e-4)
            bought = Bought.joined(bought, selection.indices[old:], stored.loss[old:])
        adapter = finetune(model, annotated, recipe, trainer, directory / "adapter")
        of_run = store.get(done.rounds[number].select)
        assert of_run.indices.tolist() == selection.indices.tolist()
        trained = store.get(done.rounds[number].finetune)
        weights = [(a.path / "adapter_model.safetensors").read_bytes() for a in (trained, adapter)]
        assert weights[0] == weights[1]


@pytest.mark.slow
def test_the_losses_of_every_round_are_those_of_the_model_before_it_is_trained_on_them(run, compose, tmp_path):
    run("strategy=mean_entropy", *IN_ROUNDS, "until=annotate")
    whole = experiment(compose, tmp_path, "strategy=mean_entropy", *IN_ROUNDS)
    store = Parts.of(compose(f"store={tmp_path / 'store'}")).store
    trained = None
    for number, one in enumerate(whole.rounds):
        bought, annotated = store.get(one.bought), store.get(one.annotate)
        network = load_finetuned(whole.model, store.get(trained)) if trained else whole.model.load()
        new = annotated.only(range(10 * number, 10 * (number + 1)))
        wanted = response_losses(network.eval(), whole.model.load_tokenizer(), whole.model, new.prompts, new.responses)
        np.testing.assert_allclose(bought.loss[10 * number :], wanted, rtol=1e-4)
        assert bought.round.tolist() == [r for r in range(number + 1) for _ in range(10)]
        trained = one.finetune


def test_a_sweep_of_1_2_and_4_rounds_shares_every_stage_it_can(compose, tmp_path):
    every = [
        experiment(compose, tmp_path, "strategy=mean_entropy", "budget=40", f"rounds={number}") for number in (1, 2, 4)
    ]
    store = Parts.of(compose(f"store={tmp_path / 'store'}")).store
    plan = make_plan([stage for one in every for stage in one.ready], store)
    # budgets 40; 20, 40; 10, 20, 30, 40. The base model's ranking is shared by the first round of each.
    assert plan.num_distinct["score"] == 1 + 1 + 3
    assert plan.num_distinct["select"] == 1 + 1 + 3
    assert plan.num_distinct["annotate"] == plan.num_distinct["finetune"] == 1 + 2 + 4
    assert plan.num_distinct["evaluate"] == 1 + 7
    assert plan.num_distinct["bought"] == 2 + 4
    # what reads no signal has nothing new to read: its rounds are prefixes of one ranking
    every = [experiment(compose, tmp_path, "strategy=random", "budget=40", f"rounds={n}") for n in (1, 2, 4)]
    plan = make_plan([stage for one in every for stage in one.ready], store)
    assert plan.num_distinct["select"] == 1
    assert plan.num_distinct["finetune"] == 4
    assert len({one.id for one in every}) == 3


def test_the_first_round_is_the_single_run_with_its_budget(compose, tmp_path):
    rounds = experiment(compose, tmp_path, "strategy=allocation", "budget=40", "rounds=[25%,100%]").rounds
    alone = experiment(compose, tmp_path, "strategy=allocation", "budget=10").rounds
    assert rounds[0].evaluate.key == alone[0].evaluate.key
    assert rounds[1].select.key != alone[0].select.key


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["allocation", "facility_location"])
def test_a_run_that_is_killed_after_any_stage_ends_in_the_same_result(run, tmp_path, monkeypatch, choice, compose):
    settings = (f"strategy={choice}", "rounds=2", "budget=20", "evaluate.limit=1")
    plan = experiment(compose, tmp_path, *settings).stages
    real, left = aliquot.experiment.run.do, [0]

    def dies(stage, *args):
        if stage.key in {planned.key for planned in plan} and not args[0].record(stage):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        real(stage, *args)

    monkeypatch.setattr(aliquot.experiment.run, "do", dies)
    for _ in range(len(plan)):
        left[0] = 1
        try:
            run(*settings)
            break
        except KeyboardInterrupt:
            continue
    killed, ours = only_run(tmp_path), finished(tmp_path)
    monkeypatch.setattr(aliquot.experiment.run, "do", real)
    run(*settings, f"store={tmp_path / 'once' / 'store'}")
    whole = only_run(tmp_path / "once")
    assert finished(tmp_path / "once") == ours
    assert killed.finetuned == whole.finetuned
    assert killed.rounds == whole.rounds
    assert killed.stability == whole.stability


@pytest.mark.slow
def test_results_and_report_tell_each_round(run, tmp_path, capsys):
    run("strategy=mean_entropy", *IN_ROUNDS, "evaluate.limit=1")
    said, record = capsys.readouterr().out, only_run(tmp_path, "in3")
    assert [one.budget for one in record.rounds] == [10, 20, 30]
    assert record.finetuned == record.rounds[-1].finetuned
    assert all(one.prospect and one.prospect.num_prompts == 10 for one in record.rounds)
    assert set(record.stability) >= {"mean_entropy", "min_margin"}
    assert all(0 <= found.overlap <= 1 for found in record.stability.values())
    assert "the next 10 are projected to gain" in said
    assert "Stability     mean_entropy" in said
    run("strategy=mean_entropy", "budget=30", "evaluate.limit=1")
    (study,) = read_studies(tmp_path / "store")
    assert sorted(cell.arm.name for cell in study.cells) == ["mean_entropy", "mean_entropy rounds=3"]


@pytest.mark.slow
def test_rounds_end_when_the_next_one_is_projected_to_gain_too_little(run, tmp_path, capsys):
    run("strategy=mean_entropy", *IN_ROUNDS, "evaluate.limit=1", "stop_below=1000")
    assert count(tmp_path, "finetune") == 1
    record = only_run(tmp_path)
    assert (record.budget, [one.budget for one in record.rounds]) == (10, [10])
    assert "Ended after round 1 of 3" in capsys.readouterr().out
    (study,) = read_studies(tmp_path / "store")
    assert [cell.arm.parameters["stop_below"] for cell in study.cells] == [1000]
    run("strategy=mean_entropy", *IN_ROUNDS, "evaluate.limit=1", "stop_below=-1000")
    assert count(tmp_path, "finetune") == 3


@pytest.mark.slow
def test_a_run_that_only_scores_does_nothing_else_whatever_its_rounds(run, tmp_path):
    run("strategy=mean_entropy", *IN_ROUNDS, "until=score")
    assert (count(tmp_path, "score"), count(tmp_path, "annotate"), count(tmp_path, "finetune")) == (1, 0, 0)


def test_a_plan_quotes_all_rounds_that_may_follow(compose, tmp_path):
    from aliquot.experiment.quote import quote

    people = ("strategy=random", "annotator=file", f"annotator.folder={tmp_path}", "annotator.price=1.0", *IN_ROUNDS)
    store = Parts.of(compose(f"store={tmp_path / 'store'}")).store
    assert quote([experiment(compose, tmp_path, *people)], store) == 30
    assert quote([experiment(compose, tmp_path, *people, "stop_below=0.5")], store) == 30
    early = ("strategy=allocation", *people[1:], "until=select")
    assert quote([experiment(compose, tmp_path, *early)], store) == 20  # the last round is not bought


def test_prompts_of_later_rounds_are_not_ready_while_people_answer_the_first(compose, tmp_path):
    people = ("strategy=random", "annotator=file", f"annotator.folder={tmp_path}", *IN_ROUNDS)
    names = [stage.name for stage in experiment(compose, tmp_path, *people).ready]
    assert set(names) == {"pool", "select", "evaluate"}


def test_a_run_keeps_its_name_before_and_after_it_is_known_how_many_rounds_are_worth_it(compose, tmp_path):
    settings = ("strategy=random", *IN_ROUNDS, "stop_below=0.5")
    planned = experiment(compose, tmp_path, *settings)
    assert planned.open
    assert planned.id.endswith("-30-in3stop0.5")
    assert planned.id.split("-")[0] == experiment(compose, tmp_path, "strategy=random", "budget=30").id.split("-")[0]


@pytest.mark.slow
@pytest.mark.parametrize("until", ["score", "select", "annotate", "finetune"])
def test_runs_that_stop_early_may_end_their_rounds_too(run, tmp_path, until):
    run("strategy=random", *IN_ROUNDS, "stop_below=1000", f"until={until}")
    assert count(tmp_path, "bought") == (0 if until == "score" else 1)
    assert count(tmp_path, "finetune") == (until == "finetune")


@pytest.mark.parametrize(
    ("rounds", "wanted"),
    [
        (1, (100,)),
        (4, (25, 50, 75, 100)),
        (3, (33, 67, 100)),
        (["10%", "50%", "100%"], (10, 50, 100)),
        ([5, "0.02k", "all"], (5, 20, 100)),
    ],
)
def test_rounds_are_parts_of_the_budget(rounds, wanted):
    assert parse_rounds(rounds, 100, "100", "p") == wanted


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        (101, "rounds=101 cannot divide a budget of 100 prompts"),
        (0, "rounds=0"),
        (-2, "rounds=-2"),
        (["50%", "10%", "100%"], "is 50, 10, 100 prompts"),
        (["10%", "10%", "100%"], "each must exceed"),
        (["10%", "50%"], "the budget is 100: the last round must end at it"),
        (["10%", "150%"], "150% is not a part"),
        (["ten", "100%"], "ten is not a part"),
        ([0, "100%"], "0 is not a part"),
    ],
)
def test_rounds_that_cannot_be_are_refused(rounds, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace("%", "%")):
        parse_rounds(rounds, 100, "100", "p")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("strategy=wrong_answers", "rounds=2"), "WrongAnswers reads the responses of the whole pool"),
        (("strategy=facility_location", "strategy/mode=distributed", "rounds=2"), "cannot continue a selection"),
        (("strategy=random", "rounds=50"), "rounds=50 cannot divide a budget of 40"),
        *(
            (("strategy=random", f"rounds={bad}"), "is neither a whole number")
            for bad in ("2.5", "true", "a", "[]", "null")
        ),
        (("strategy=random", "stop_below=0.5"), "rounds=1 has no next one"),
        (("strategy=allocation", "strategy.offset=0.0", "rounds=2"), "with strategy.offset=0"),
    ],
)
def test_what_cannot_be_done_in_rounds_is_refused_before_anything_is_done(run, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        run(*settings)
    assert not {path for path in finished(tmp_path) if not path.startswith("pool/")}
