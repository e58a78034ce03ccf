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
