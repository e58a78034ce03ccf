"""The loss on held-out responses, against the one that transformers computes from labels."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from aliquot.evaluation.run import check_evaluable, evaluate
from aliquot.evaluation.validation_loss import LIKELIHOOD, ValidationLoss
from aliquot.finetuning.recipe import LoRA
from aliquot.finetuning.run import finetune
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.stages import Evaluate
from aliquot.types import AnnotatedSet
from tiny_model import WORDS, save_tiny_model

CPU = TrainerSpec("cpu")
TEMPLATE = "{prompt} Answer : {response}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_tiny_model(tmp_path_factory.mktemp("model"))), template=TEMPLATE)


@pytest.fixture(scope="module")
def rows():
    draw = random.Random(0)
    say = lambda most: " ".join(draw.choices(WORDS[:16], k=draw.randint(1, most)))  # noqa: E731
    return [{"prompt": say(9), "response": say(4)} for _ in range(13)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ValidationLoss(str(path), tokens_per_batch=60)


def labeled_loss(model, row):
    """Let transformers compute the mean loss of one row, prompt tokens left out by their labels."""
    import torch

    tokenizer = model.load_tokenizer()
    before = tokenizer(f"{row['prompt']} Answer :")["input_ids"]
    ids = [*tokenizer(f"{row['prompt']} Answer : {row['response']}")["input_ids"], tokenizer.eos_token_id]
    labels = [-100] * len(before) + ids[len(before) :]
    with torch.no_grad():
        loss = model.load()(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
    return float(loss), len(ids) - len(before)


@pytest.mark.slow
def test_losses_are_those_that_transformers_computes_from_labels(model, rows, tmp_path):
    spec = write(tmp_path / "held_out.jsonl", rows)
    found = evaluate(model, None, spec, CPU, tmp_path)
    losses, lengths = np.array([labeled_loss(model, row) for row in rows]).T
    values = np.exp(-losses)
    np.testing.assert_allclose(found.correct[LIKELIHOOD], values, rtol=1e-5)
    (metric,) = found.metrics
    assert (metric.name, metric.num_questions) == (LIKELIHOOD, 13)
    assert metric.value == pytest.approx(values.mean(), rel=1e-5)
    assert metric.stderr == pytest.approx(values.std(ddof=1) / np.sqrt(13), rel=1e-4)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["loss"] == pytest.approx((losses * lengths).sum() / lengths.sum(), rel=1e-5)
    assert evaluate(model, None, replace(spec, limit=4), CPU, tmp_path).correct[LIKELIHOOD] == pytest.approx(values[:4])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft
def test_an_adapter_that_was_trained_on_the_rows_makes_them_likelier(model, rows, tmp_path):
    recipe = LoRA(
        rank=4, alpha=8, dropout=0.0, target_modules="all-linear", learning_rate=2e-2, warmup=0.0, schedule="constant",
        weight_decay=0.0, epochs=5, tokens_per_batch=200, accumulate=1, max_grad_norm=1.0, seed=0, checkpoint_every=99,
    )  # fmt: skip
    spec = write(tmp_path / "rows.jsonl", rows)
    known = AnnotatedSet([str(i) for i in range(13)], *([row[key] for row in rows] for key in ("prompt", "response")))
    adapter = finetune(model, known, recipe, CPU, tmp_path / "adapter")
    base, finetuned = (evaluate(model, a, spec, CPU, tmp_path / "done").metrics[0].value for a in (None, adapter))
    assert finetuned > base + 0.01


def test_the_identity_is_the_content_and_what_is_read_of_it(model, rows, tmp_path):
    spec = write(tmp_path / "a.jsonl", rows)
    keys = [
        Evaluate(model, None, other, CPU).key
        for other in (spec, write(tmp_path / "b.jsonl", rows), write(tmp_path / "c.jsonl", rows[1:]),
                      replace(spec, limit=3), replace(spec, prompt="response"))
    ]  # fmt: skip
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": " "}],
            {},
            r"a\.jsonl:2: no text in column 'resp",
        ),
        ([{"prompt": " ", "response": "b"}], {}, r"a\.jsonl:1: the prompt is empty"),
        ([], {}, r"has no rows"),
        ([], {"path": "nowhere.jsonl"}, r"evaluate\.path=nowhere\.jsonl: .* is not a file of prompts"),
    ],
)
def test_a_row_that_cannot_be_scored_is_told_before_anything_is(model, tmp_path, rows, options, message):
    with pytest.raises(ValueError, match=message):
        check_evaluable(model, replace(write(tmp_path / "a.jsonl", rows), **options))


@pytest.mark.slow
def test_a_run_reports_it_like_a_benchmark(run, tmp_path, capsys, rows):
    path = tmp_path / "held_out.jsonl"
    write(path, rows)
    score = run("strategy=random", "evaluate=validation_loss", f"evaluate.path={path}", "evaluate.limit=5")
    assert 0 < score < 1
    assert LIKELIHOOD in capsys.readouterr().out
