"""Every measure of held-out rows, against transformers' own generate and logits, one row at a time, without padding."""

import json
import random
import re

import numpy as np
import pytest

from aliquot.evaluation.held_out.overlap import NOT_COMPARED
from aliquot.evaluation.held_out.spec import CHOICE, EXACT_MATCH, LIKELIHOOD, TOKEN_F1, HeldOut
from aliquot.evaluation.run import evaluate
from aliquot.evaluation.validation_loss import ValidationLoss
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from tiny_model import WORDS, save_tiny_model

CPU = TrainerSpec("cpu")
TEMPLATE = "{prompt} Answer : {response}"
CHAT = (
    "{% for m in messages %}{{ '<s> ' if loop.first }}{{ m.content }} {{ ': ' if m.role == 'user' else '</s>' }}"
    "{% endfor %}"
)
CAUSAL = ("llama", "gpt2", "mistral", "qwen3", "falcon_h1", "bamba", "qwen3_5_text")  # the last three are recurrent
NUM_NEW = 5


def draw_rows(count=23):
    draw = random.Random(0)
    say = lambda most: " ".join(draw.choices(WORDS[:16], k=draw.randint(1, most)))  # noqa: E731
    rows = []
    for i in range(count):
        right = say(4)
        options = list(dict.fromkeys([say(3), right, say(6), say(1)])) if i % 3 else []
        rows.append({"id": f"r{i}", "task": f"t{i % 4}", "prompt": say(9), "response": right, "options": options})
    return rows


def save(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def plain_texts(tokenizer, row, response):
    """Return the texts of prompt and response; the chat template is applied by the tokenizer itself."""
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": response}]
        before = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
        return before, tokenizer.apply_chat_template(turns, tokenize=False).rstrip()
    return f"{row['prompt']} Answer :", f"{row['prompt']} Answer : {response}"


def by_transformers(network, tokenizer, row):
    """Return the response of `generate`, and the log-likelihood and length of every given response."""
    import torch

    encoder = network.config.is_encoder_decoder
    special = {"add_special_tokens": not tokenizer.chat_template}
    found = {}
    for given in row["options"] or [row["response"]]:
        before, whole = plain_texts(tokenizer, row, given)
        end = [tokenizer.eos_token_id]
        if encoder:
            prompt, rest = tokenizer(before)["input_ids"], tokenizer(text_target=given)["input_ids"]
        else:
            prompt = tokenizer(before, **special)["input_ids"]
            rest = tokenizer(whole, **special)["input_ids"][len(prompt) :]
        rest = rest if rest[-1:] == end else [*rest, *end]
        with torch.no_grad():
            if encoder:
                start = [network.config.decoder_start_token_id]
                ids = torch.tensor([start + rest[:-1]])
                logits = network(input_ids=torch.tensor([prompt]), decoder_input_ids=ids).logits[0]
            else:
                logits = network(input_ids=torch.tensor([[*prompt, *rest]])).logits[0, len(prompt) - 1 : -1]
        nats = logits.double().log_softmax(dim=1)[range(len(rest)), rest].sum()
        found[given] = float(nats), len(rest)
    with torch.no_grad():
        ids = torch.tensor([prompt])
        said = network.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_NEW, do_sample=False, num_beams=1
        )[0]
    said = said[1:] if encoder else said[len(prompt) :]
    return tokenizer.decode(said, skip_special_tokens=True).strip(), found


def words(text):
    """Split a text of these models, whose only punctuation is a colon, a question mark or a stop."""
    return [word for word in re.sub(r"[:?.]", "", text.lower()).split() if word not in ("a", "the")]


def f1(said, right):
    """Return the F1 of two texts by pairing off equal words one by one."""
    said, right = words(said), words(right)
    if not said or not right:
        return float(said == right)
    rest = list(right)
    shared = sum(1 for word in said if word in rest and not rest.remove(word))
    return 2 * shared / (len(said) + len(right))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "template"),
    [("t5", "plain"), *((family, template) for family in CAUSAL for template in ("plain", "chat"))],
)
def test_every_measure_is_that_of_an_independent_loop(tmp_path, family, template):
    path = save_tiny_model(tmp_path / "model", family=family)
    model = Model(str(path), template=TEMPLATE, max_tokens=64)
    if template == "chat":
        config = json.loads((path / "tokenizer_config.json").read_text())
        (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHAT}))
        model = Model(str(path), template="chat", max_tokens=64)
    rows = draw_rows()
    spec = HeldOut(save(tmp_path / "rows.jsonl", rows), max_new_tokens=NUM_NEW, tokens_per_batch=100)
    found = evaluate(model, None, spec, CPU, tmp_path / "out", NOT_COMPARED).correct
    lines = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    network, tokenizer = model.load(), model.load_tokenizer()
    choices = []
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        said, nats = by_transformers(network, tokenizer, row)
        assert line["response"] == said
        assert found[EXACT_MATCH][i] == float(said == row["response"])
        assert found[TOKEN_F1][i] == pytest.approx(f1(said, row["response"]), abs=1e-12)
        total, length = nats[row["response"]]
        assert found[LIKELIHOOD][i] == pytest.approx(np.exp(total / length), rel=1e-5)
        assert line["log_likelihoods"] == pytest.approx({text: value for text, (value, _) in nats.items()}, rel=1e-5)
        if row["options"]:
            choices.append(float(max(nats, key=lambda text: nats[text][0]) == row["response"]))
    assert found[CHOICE] == choices
    validated = evaluate(model, None, ValidationLoss(spec.path), CPU, tmp_path / "loss").correct
    assert found[LIKELIHOOD] == pytest.approx(next(iter(validated.values())), rel=1e-5)


def long_rows():
    """Return rows of which some prompts and some responses do not fit into 24 tokens."""
    draw = random.Random(1)
    text = lambda num: " ".join(draw.choices(WORDS[:16], k=num))  # noqa: E731
    sizes = [(4, 2), (30, 2), (4, 30), (30, 30), (14, 3), (10, 9)]
    return [{"prompt": text(p), "response": text(r)} for p, r in sizes]


def test_rows_are_cut_as_for_validation_loss(tmp_path):
    model = Model(str(save_tiny_model(tmp_path / "model")), template=TEMPLATE, max_tokens=24)
    spec = HeldOut(save(tmp_path / "rows.jsonl", long_rows()), max_new_tokens=3)
    found = evaluate(model, None, spec, CPU, tmp_path / "out").correct[LIKELIHOOD]
    validated = evaluate(model, None, ValidationLoss(spec.path), CPU, tmp_path / "loss").correct
    assert found == pytest.approx(next(iter(validated.values())), rel=1e-5)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["num_cut"] == 3


def test_a_row_that_is_too_long_is_refused_where_the_model_says_so(tmp_path):
    model = Model(str(save_tiny_model(tmp_path / "model")), template=TEMPLATE, max_tokens=24, overlong="refuse")
    fits, long = save(tmp_path / "fits.jsonl", long_rows()[:1]), save(tmp_path / "long.jsonl", long_rows()[2:3])
    assert evaluate(model, None, HeldOut(fits), CPU, tmp_path / "out").metrics
    with pytest.raises(ValueError, match=r"overlong=refuse, and held-out row \w+ takes \d+ tokens"):
        evaluate(model, None, HeldOut(long), CPU, tmp_path / "none")


@pytest.mark.slow
@pytest.mark.parametrize("tokens_per_batch", [1, 300])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft
def test_an_adapter_that_stays_apart_reads_alone_as_in_a_batch(tmp_path, tokens_per_batch):
    """In 16 bits the adapter is not merged; GPT-2's positions are learned, so a wrong one shows at once."""
    from aliquot.finetuning.recipe import LoRA
    from aliquot.finetuning.run import finetune
    from aliquot.types import AnnotatedSet

    model = Model(str(save_tiny_model(tmp_path / "model", family="gpt2")), template=TEMPLATE, dtype="bfloat16")
    rows = draw_rows(9)
    known = AnnotatedSet(*([row[key] for row in rows] for key in ("id", "prompt", "response")))
    recipe = LoRA(
        rank=4, alpha=64, dropout=0.0, target_modules="all-linear", learning_rate=5e-2, warmup=0.0, schedule="constant",
        weight_decay=0.0, epochs=3, tokens_per_batch=200, accumulate=1, max_grad_norm=1.0, seed=0, checkpoint_every=99,
    )  # fmt: skip
    adapter = finetune(model, known, recipe, CPU, tmp_path / "adapter")
    spec = HeldOut(save(tmp_path / "rows.jsonl", rows), max_new_tokens=2, tokens_per_batch=tokens_per_batch)
    found = evaluate(model, adapter, spec, CPU, tmp_path / "out").correct[LIKELIHOOD]
    whole = evaluate(model, adapter, ValidationLoss(spec.path), CPU, tmp_path / "loss").correct
    assert found == pytest.approx(next(iter(whole.values())), rel=0.03)


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_from_its_batches_to_the_same_result(tmp_path, monkeypatch):
    from aliquot.evaluation.held_out import answers
    from aliquot.evaluation.held_out.reader import BatchReader

    model = Model(str(save_tiny_model(tmp_path / "model")), template=TEMPLATE, max_tokens=64)
    spec = HeldOut(save(tmp_path / "rows.jsonl", draw_rows()), max_new_tokens=NUM_NEW, tokens_per_batch=30)
    whole = evaluate(model, None, spec, CPU, tmp_path / "whole")
    monkeypatch.setattr(answers, "_SHARD_SIZE", 3)
    read, done = BatchReader.read, []

    def dying(reader, batch):
        if len(done) == 6:
            raise KeyboardInterrupt
        done.append(batch.rows.tolist())
        return read(reader, batch)

    monkeypatch.setattr(BatchReader, "read", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, None, spec, CPU, tmp_path / "killed")
    again = []
    monkeypatch.setattr(
        BatchReader, "read", lambda reader, batch: again.extend(batch.rows.tolist()) or read(reader, batch)
    )
    resumed = evaluate(model, None, spec, CPU, tmp_path / "killed")
    assert 0 < len(again) < len(draw_rows()) - 3
    assert resumed.correct == whole.correct
    assert (tmp_path / "killed" / "rows.jsonl").read_text() == (tmp_path / "whole" / "rows.jsonl").read_text()
    assert not (tmp_path / "killed" / "shards").exists()
