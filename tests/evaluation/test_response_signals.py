"""What the base model makes of a pool's responses, against transformers one row at a time, without padding."""

import json
import random

import numpy as np
import pytest

from aliquot.evaluation.response_signals import load_signals, read_signals
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.shards import ShardBuffer
from aliquot.types import Pool
from tiny_model import WORDS, save_tiny_model

CPU = TrainerSpec("cpu")
PLAIN = "{prompt} Answer : {response}"
#: Nothing stands before the response where the prompt is empty and the tokenizer adds nothing.
BARE = "{prompt} {response}"
CHAT = (
    "{% for m in messages %}{{ '<s> ' if loop.first }}{{ m.content }} {{ ': ' if m.role == 'user' else '</s>' }}"
    "{% endfor %}"
)


def draw(count=23, seed=0):
    """Draw prompts and responses of these words."""
    rng = random.Random(seed)
    say = lambda most: " ".join(rng.choices(WORDS[:16], k=rng.randint(1, most)))  # noqa: E731
    prompts = [f"{say(9)} {i} ?" for i in range(count)]
    return Pool("test", [f"r{i}" for i in range(count)], prompts), [say(5) for _ in range(count)]


def made(path, family, template):
    path = save_tiny_model(path, family=family)
    if template == "chat":
        config = json.loads((path / "tokenizer_config.json").read_text())
        (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHAT}))
    return Model(str(path), template=template, max_tokens=64)


def texts(model, prompt, response):
    """Return the text up to the response, and the whole."""
    if model.template == "chat":
        return f"<s> {prompt} :", f"<s> {prompt} : {response} </s>"
    before, after = model.template.replace("{prompt}", prompt).split("{response}")
    return before.rstrip(" "), before + response + after


def tokens_of(model, network, tokenizer, prompt, response):
    """Return the tokens before the response, and those of it with the one that ends it."""
    before, whole = texts(model, prompt, response)
    if network.config.is_encoder_decoder:
        return tokenizer(before)["input_ids"], tokenizer(text_target=response)["input_ids"]
    special = {"add_special_tokens": model.template != "chat"}
    prefix = tokenizer(before, **special)["input_ids"]
    rest = tokenizer(whole, **special)["input_ids"][len(prefix) :]
    return prefix, rest if rest[-1:] == [tokenizer.eos_token_id] else [*rest, tokenizer.eos_token_id]


def mean_loss(network, prefix, rest):
    """Return the mean cross entropy of a response, from the logits of one plain call."""
    import torch
    from torch.nn.functional import cross_entropy

    with torch.no_grad():
        if network.config.is_encoder_decoder:
            read = torch.tensor([[network.config.decoder_start_token_id, *rest[:-1]]])
            logits = network(input_ids=torch.tensor([prefix]), decoder_input_ids=read).logits[0]
        else:
            logits = network(input_ids=torch.tensor([[*prefix, *rest]])).logits[0, len(prefix) - 1 : -1]
    return float(cross_entropy(logits, torch.tensor(rest)))


def said(network, tokenizer, prefix, most):
    """Return the response of `generate`."""
    import torch

    ids = torch.tensor([prefix])
    found = network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False)[0]
    found = found[1:] if network.config.is_encoder_decoder else found[len(prefix) :]
    return tokenizer.decode(found, skip_special_tokens=True).split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "template"),
    [("llama", PLAIN), ("llama", BARE), ("llama", "chat"), ("gpt2", PLAIN), ("t5", PLAIN), ("falcon_h1", PLAIN)],
)
def test_every_signal_is_that_of_an_independent_loop(tmp_path, monkeypatch, family, template):
    monkeypatch.setattr("aliquot.evaluation.response_signals._ROWS_AT_ONCE", 10)
    model = made(tmp_path / "model", family, template)
    network, tokenizer = model.load(), model.load_tokenizer()
    pool, responses = draw()
    for i in (2, 9):  # what the model says is right for these
        prefix, _ = tokens_of(model, network, tokenizer, pool.prompts[i], "x")
        responses[i] = " ".join(said(network, tokenizer, prefix, 4)) or responses[i]
    read_signals(model, pool, responses, CPU, tokens_per_batch=100, directory=tmp_path)
    signals = load_signals(tmp_path)
    pairs = [tokens_of(model, network, tokenizer, *pair) for pair in zip(pool.prompts, responses, strict=True)]
    longest = max(len(rest) for _, rest in pairs)
    empty, _ = tokens_of(model, network, tokenizer, "", "x")
    for i, (prefix, rest) in enumerate(pairs):
        assert signals.loss[i] == pytest.approx(mean_loss(network, prefix, rest), abs=1e-5)
        alone = mean_loss(network, empty or [tokenizer.bos_token_id], rest)
        assert signals.loss_alone[i] == pytest.approx(alone, abs=1e-5)
        assert signals.correct[i] == (said(network, tokenizer, prefix, longest) == responses[i].split())


def test_an_own_response_that_equals_the_given_one_is_correct_and_any_other_is_not(tmp_path):
    model = made(tmp_path / "model", "llama", PLAIN)
    network, tokenizer = model.load(), model.load_tokenizer()
    pool, responses = draw(8)
    read_signals(model, pool, responses, CPU, 4096, tmp_path)
    assert not load_signals(tmp_path).correct.all()
    answered = [said(network, tokenizer, tokens_of(model, network, tokenizer, p, "x")[0], 32) for p in pool.prompts]
    own = [" ".join(words) or "none" for words in answered]
    (tmp_path / "own").mkdir()
    read_signals(model, pool, own, CPU, 4096, tmp_path / "own")
    assert load_signals(tmp_path / "own").correct.tolist() == [bool(words) for words in answered]


def test_a_pass_that_was_cut_off_goes_on_from_its_finished_batches(tmp_path, monkeypatch):
    model = made(tmp_path / "model", "llama", PLAIN)
    pool, responses = draw(300)
    monkeypatch.setattr("aliquot.evaluation.held_out.answers._SHARD_SIZE", 32)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    read_signals(model, pool, responses, CPU, 400, whole)
    save, saved = ShardBuffer.save, []

    def save_and_be_killed(self):
        save(self)
        saved.append(None)
        if len(saved) in (2, 4, 9):
            raise KeyboardInterrupt

    monkeypatch.setattr(ShardBuffer, "save", save_and_be_killed)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            read_signals(model, pool, responses, CPU, 400, cut)
    finished = sum(len(np.load(file)["rows"]) for file in cut.rglob("*.npz"))
    assert 300 < finished < 600  # within the second of two passes
    read_signals(model, pool, responses, CPU, 400, cut)
    for name in ("loss", "loss_alone", "correct"):
        np.testing.assert_allclose(getattr(load_signals(cut), name), getattr(load_signals(whole), name), atol=1e-6)
    assert [file.name for file in cut.iterdir()] == ["signals.npz"]
