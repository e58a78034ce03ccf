"""Finetuning: what is trained on, in which steps, and that an interruption changes nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aliquot.finetuning.run import finetune, load_adapter
from aliquot.models.quantization import NF4
from aliquot.models.spec import Model
from aliquot.types import AnnotatedSet
from command_line import Command
from small_recipe import CPU, RECIPE
from tiny_model import WORDS, save_tiny_model


def annotated(num_rows=40, seed=0):
    draw = random.Random(seed)
    prompts = [" ".join(draw.choices(WORDS[:16], k=draw.randint(3, 9))) for _ in range(num_rows)]
    return AnnotatedSet([str(i) for i in range(num_rows)], prompts, [p.split()[0] for p in prompts])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_tiny_model(tmp_path_factory.mktemp("model"))), template="{prompt} Answer : {response}")


@pytest.fixture(scope="module")
def uninterrupted(model, tmp_path_factory):
    return finetune(model, annotated(), RECIPE, CPU, tmp_path_factory.mktemp("whole"))


def encoded(model, rows, **changes):
    from aliquot.finetuning.examples import encode_examples

    return encode_examples(replace(model, **changes), model.load_tokenizer(), rows)


def weights(adapter):
    from safetensors.numpy import load_file

    return load_file(adapter.path / "adapter_model.safetensors")


def assert_same(one, other, tolerance=0.0):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=tolerance, err_msg=name)


def make_module(model, examples, plan, recipe=RECIPE):
    from aliquot.finetuning.adapter import add_adapter
    from aliquot.finetuning.module import LoRAModule

    return LoRAModule(add_adapter(model, recipe), recipe, examples, plan, pad=0, fingerprint="")


def one_step(examples, **changes):
    from aliquot.finetuning.examples import plan_steps

    return plan_steps(examples, replace(RECIPE, **{"tokens_per_batch": 100, "accumulate": 99, "epochs": 1} | changes))


def test_only_the_response_and_its_end_are_trained_on(model):
    from aliquot.finetuning.examples import IGNORE, StepBatches

    examples = encoded(model, AnnotatedSet(["0", "1"], ["a cat sees one", "dog"], ["the bird", "two"]))
    (batch,) = StepBatches(examples, one_step(examples), pad=0)
    tokenizer = model.load_tokenizer()
    trained = sorted(tokenizer.decode(row[row != IGNORE]) for part in batch.micro_batches for row in part.targets)
    assert trained == ["the bird </s>", "two </s>"]
    assert batch.num_targets == 5
    for part in batch.micro_batches:
        labeled = part.targets[:, :-1] != IGNORE
        assert (part.targets[:, :-1][labeled] == part.input_ids[:, 1:][labeled]).all()
        assert (part.attention_mask.sum(1) == (part.input_ids != 0).sum(1)).all()


def test_every_epoch_holds_every_row_once_in_new_batches_within_the_token_budget():
    from aliquot.finetuning.examples import micro_batches

    lengths = np.random.default_rng(0).integers(3, 60, size=500)
    epochs = [micro_batches(lengths, 256, np.random.default_rng([0, epoch])) for epoch in (0, 1, 0)]
    for batches in epochs:
        assert sorted(np.concatenate(batches)) == list(range(500))
        assert all(len(rows) * lengths[rows].max() <= 256 for rows in batches)
        padded = sum(len(rows) * lengths[rows].max() for rows in batches)
        assert padded < 1.15 * lengths.sum()
    as_text = [[rows.tolist() for rows in batches] for batches in epochs]
    assert as_text[0] == as_text[2] != as_text[1]


def test_a_row_longer_than_the_token_budget_is_a_batch_of_its_own():
    from aliquot.finetuning.examples import micro_batches

    batches = micro_batches(np.array([5, 5, 50, 60]), 10, np.random.default_rng(0))
    assert sorted(sorted(rows.tolist()) for rows in batches) == [[0, 1], [2], [3]]


def test_the_last_step_of_an_epoch_takes_the_batches_that_remain(model):
    examples = encoded(model, annotated(11))
    plan = one_step(examples, tokens_per_batch=1, accumulate=4, epochs=2)
    assert [len(step) for step in plan.steps] == [4, 4, 3] * 2
    assert plan.num_targets.sum() == 2 * sum(examples.lengths - examples.prompt_lengths)


def test_a_step_counted_in_rows_has_exactly_so_many_whatever_their_lengths():
    from aliquot.finetuning.examples import Examples, plan_steps

    lengths = np.random.default_rng(0).integers(3, 200, size=500)
    examples = Examples([np.zeros(n, dtype=np.int32) for n in lengths], np.ones(500, dtype=np.int64), 0, 0)
    recipe = replace(RECIPE, accumulate=None, rows_per_step=128, tokens_per_batch=512)
    plan = plan_steps(examples, recipe)
    rows = [np.concatenate(step) for step in plan.steps]
    assert [len(step) for step in rows] == [128, 128, 128, 116] * 2
    assert sorted(np.concatenate(rows[:4])) == sorted(np.concatenate(rows[4:])) == list(range(500))
    assert set(rows[0]) != set(rows[4])
    assert all(len(part) * lengths[part].max() <= 512 for step in plan.steps for part in step)
    assert plan.num_tokens.tolist() == [lengths[step].sum() for step in rows]
    other = plan_steps(examples, replace(recipe, tokens_per_batch=100_000))
    assert [sorted(np.concatenate(step)) for step in other.steps] == [sorted(step) for step in rows]


def test_prompts_make_room_for_responses_and_what_was_cut_is_counted_and_reported(model, tmp_path, caplog):
    rows = AnnotatedSet(list("abc"), ["cat " * 9 + "dog", "one", "cat"], ["one two three", "cat " * 20, "dog </s>"])
    with caplog.at_level("INFO"):
        adapter = finetune(replace(model, max_tokens=9), rows, RECIPE, CPU, tmp_path)
    assert "1 of 3 examples contain what looks like a control token" in caplog.text
    record = json.loads((tmp_path / "finetune.json").read_text())
    assert (record["rows"], record["prompts_cut"], record["responses_cut"]) == (3, 1, 1)
    assert "1 lost the beginning of the prompt and 1 the end of the response" in caplog.text
    assert np.isfinite(adapter.loss)
    with pytest.raises(ValueError, match="0 annotated prompts"):
        finetune(model, AnnotatedSet([], [], []), RECIPE, CPU, tmp_path / "none")


@pytest.mark.parametrize(("prompt", "response"), [("cat " * 9 + "dog", "one"), ("one", "cat " * 20)])
def test_an_example_that_is_too_long_is_refused_where_asked_for(model, prompt, response):
    with pytest.raises(ValueError, match=r"takes \d+ tokens.*raise model.max_tokens"):
        encoded(model, AnnotatedSet(["0"], [prompt], [response]), max_tokens=9, overlong="refuse")


@pytest.mark.parametrize("max_tokens", [2, 3, 8, 30])
def test_every_example_keeps_the_end_of_its_prompt_and_the_beginning_of_its_response(model, max_tokens):
    from aliquot.finetuning.examples import encode_examples

    cut = replace(model, max_tokens=max_tokens)
    tokenizer = model.load_tokenizer()
    rows = AnnotatedSet(["a", "b"], ["cat " * 30 + "dog", "one"], ["two", "three " * 30])
    examples = encode_examples(cut, tokenizer, rows)
    prompts, responses = zip(*model.encoding(tokenizer).pairs(rows.prompts, rows.responses), strict=True)
    for tokens, start, prompt, response in zip(
        examples.tokens, examples.prompt_lengths, prompts, responses, strict=True
    ):
        assert 1 <= start < len(tokens) <= max_tokens
        assert tokens[:start].tolist() == prompt[-start:]
        assert tokens[start:].tolist() == response[: len(tokens) - start]


def test_loss_is_that_of_plain_transformers_one_row_at_a_time(model):
    import torch

    from aliquot.finetuning.examples import StepBatches

    examples = encoded(model, annotated(12))
    plan = one_step(examples)
    module = make_module(model, examples, plan).eval()
    (batch,) = StepBatches(examples, plan, pad=0)
    network, expected = model.load(), 0.0
    with torch.no_grad():
        for ids, start in zip(examples.tokens, examples.prompt_lengths, strict=True):
            log_probabilities = network(input_ids=torch.from_numpy(ids.astype("int64"))[None]).logits[0].log_softmax(-1)
            expected -= sum(float(log_probabilities[t - 1, ids[t]]) for t in range(start, len(ids)))
        found = sum(float(module.loss_sum(part)) for part in batch.micro_batches)
    assert found == pytest.approx(expected, rel=1e-5)


def test_devices_share_every_step(model):
    import torch

    from aliquot.finetuning.examples import StepBatches

    examples = encoded(model, annotated(7))
    plan = one_step(examples, tokens_per_batch=30)
    module = make_module(model, examples, plan).eval()

    def gradients(batches):
        module.zero_grad()
        for batch in batches:
            for part in batch.micro_batches:
                (module.loss_sum(part) / batch.num_targets).backward()
        return [p.grad.clone() for p in module.parameters() if p.requires_grad]

    whole = gradients(StepBatches(examples, plan, 0))
    shares = gradients(batch for rank in range(3) for batch in StepBatches(examples, plan, 0, rank, world=3))
    for one, other in zip(whole, shares, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_accumulating_equals_one_big_batch(model, tmp_path):
    rows = annotated(24)
    small = replace(RECIPE, dropout=0.0, tokens_per_batch=30, accumulate=1000)
    big = replace(RECIPE, dropout=0.0, tokens_per_batch=100_000, accumulate=1)
    one, other = (finetune(model, rows, r, CPU, tmp_path / str(r.accumulate)) for r in (small, big))
    assert one.steps == other.steps == 2
    assert_same(one, other, tolerance=2e-5)


def test_rate_rises_over_the_warmup_then_follows_the_schedule():
    from aliquot.finetuning.module import learning_rate

    def curve(schedule):
        return [learning_rate(replace(RECIPE, schedule=schedule), step, 100) for step in range(100)]

    rates = {schedule: curve(schedule) for schedule in ("linear", "cosine", "constant")}
    for values in rates.values():
        np.testing.assert_allclose(values[:10], np.linspace(1e-3, 1e-2, 10))
    assert rates["linear"][55] == rates["cosine"][55] == pytest.approx(5e-3)
    assert 0 < rates["linear"][-1] < 2e-4
    assert 0 < rates["cosine"][-1] < 1e-5
    assert rates["constant"][-1] == 1e-2


@pytest.mark.slow
def test_same_seed_same_adapter(model, uninterrupted, tmp_path):
    assert_same(uninterrupted, finetune(model, annotated(), RECIPE, CPU, tmp_path / "same"))
    other = finetune(model, annotated(), replace(RECIPE, seed=1), CPU, tmp_path / "other")
    assert any((weights(uninterrupted)[name] != w).any() for name, w in weights(other).items())


@pytest.mark.slow
def test_training_learns_and_leaves_an_adapter_any_machine_can_read(model, tmp_path):
    adapter = finetune(model, annotated(60), replace(RECIPE, epochs=12), CPU, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] > 2 * adapter.loss
    assert lines[-1]["step"] == adapter.steps
    assert set(lines[0]) == {"step", "loss", "learning_rate", "tokens", "seconds"}
    config = json.loads((adapter.path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == Path(model.path).name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "finetune.json", "metrics.jsonl"]
    assert load_adapter(tmp_path) == adapter
    assert not any("lm_head" in name or "embed" in name for name in weights(adapter))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [4, 8, 11])
def test_resumed_mid_epoch_equals_uninterrupted(model, uninterrupted, tmp_path, monkeypatch, stop):
    from aliquot.finetuning.module import LoRAModule

    assert uninterrupted.steps > 11
    train = LoRAModule.training_step

    def cut_off(self, batch, batch_idx):
        if batch.step == stop:
            raise KeyError("cut off")
        return train(self, batch, batch_idx)

    monkeypatch.setattr(LoRAModule, "training_step", cut_off)
    with pytest.raises(KeyError):
        finetune(model, annotated(), RECIPE, CPU, tmp_path)
    monkeypatch.undo()
    adapter = finetune(model, annotated(), RECIPE, CPU, tmp_path)
    assert_same(adapter, uninterrupted)
    assert adapter.loss == pytest.approx(uninterrupted.loss, rel=1e-6)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, adapter.steps + 1))
    assert not (tmp_path / "checkpoint.ckpt").exists()


@pytest.mark.slow
def test_checkpoint_holds_the_adapter_only_and_is_refused_by_another_training(model, tmp_path, monkeypatch):
    import torch

    from aliquot.finetuning import training

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(training, "save_adapter", full_disk)
    with pytest.raises(OSError, match="no space"):
        finetune(model, annotated(), RECIPE, CPU, tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)
    names = set(checkpoint["state_dict"]) - {"losses"}
    assert names
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    with pytest.raises(ValueError, match="another recipe, model or data"):
        finetune(model, annotated(), replace(RECIPE, rank=2), CPU, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_process_resumes_to_the_same_adapter(model, uninterrupted, tmp_path, how):
    script = f"""
import sys, time
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]!r}
from aliquot.finetuning import module as finetune_module
from test_finetune import *
train = finetune_module.LoRAModule.training_step
def slow(self, batch, batch_idx):
    time.sleep({60 if how == signal.SIGKILL else 2} * (batch.step == 7))
    return train(self, batch, batch_idx)
finetune_module.LoRAModule.training_step = slow
finetune(Model({model.path!r}, template={model.template!r}), annotated(), RECIPE, CPU, Path({str(tmp_path)!r}))
"""
    process = Command("-c", script, cwd=tmp_path)
    metrics, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 300  # a busy machine imports slowly
    while not (metrics.exists() and len(metrics.read_text().splitlines()) == 7):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    codes = {signal.SIGKILL: [-how], signal.SIGTERM: [128 + how], signal.SIGINT: [1, -how]}
    assert process.wait() in codes[how]
    # Told to end, it saves at the next step's boundary; killed, it left the checkpoint of step 6.
    assert checkpoint_step(tmp_path) == (6 if how == signal.SIGKILL else 8)
    assert_same(finetune(model, annotated(), RECIPE, CPU, tmp_path), uninterrupted)


@pytest.mark.slow
def test_told_to_end_between_two_looks_it_still_saves_and_says_so_by_its_exit_code(
    model, uninterrupted, tmp_path, monkeypatch
):
    from aliquot.finetuning.module import LoRAModule

    def told(module, *_):  # Lightning calls it after our look at the end of a step, and before its own
        if module.trainer.global_step == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(LoRAModule, "on_train_batch_end", told)
    with pytest.raises(SystemExit) as end:
        finetune(model, annotated(), RECIPE, CPU, tmp_path)
    assert end.value.code == 128 + signal.SIGTERM
    assert checkpoint_step(tmp_path) == 4
    monkeypatch.undo()
    assert_same(finetune(model, annotated(), RECIPE, CPU, tmp_path), uninterrupted)


def checkpoint_step(directory):
    import torch

    return torch.load(directory / "checkpoint.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, r"finetune.rank=0 is too small"),
        (
            {"rows_per_step": 8},
            r"accumulate=2 and finetune.rows_per_step=8: exactly one must say .* make the other null",
        ),
        ({"accumulate": None}, r"accumulate=None and finetune.rows_per_step=None: exactly one"),
        ({"accumulate": None, "rows_per_step": 0}, r"finetune.rows_per_step=0 is too small"),
        ({"dropout": 1.0}, r"finetune.dropout=1.0 is outside \[0, 1\)"),
        ({"learning_rate": 0.0}, r"finetune.learning_rate=0.0 is not positive"),
        ({"schedule": "linaer"}, r"linaer is unknown; choose one of linear, cosine, constant"),
        ({"target_modules": ["q_proj", "lm_head"]}, r"names the output layer"),
    ],
)
def test_bad_recipes_are_refused_with_the_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **change)


def test_a_training_that_explodes_says_so(model, tmp_path):
    with pytest.raises(ValueError, match=r"the loss is nan at step \d+; lower finetune.learning_rate \(now 1e\+30\)"):
        finetune(model, annotated(), replace(RECIPE, learning_rate=1e30), CPU, tmp_path)


def test_one_layer_may_be_named_and_names_that_match_none_are_refused(model):
    from aliquot.finetuning.adapter import add_adapter

    network = add_adapter(model, replace(RECIPE, target_modules="q_proj"))
    adapted = {name for name, _ in network.named_parameters() if "lora_A" in name}
    assert len(adapted) == 2 and all(".q_proj." in name for name in adapted)
    message = r"no linear layer of the model is named 'query'; its linear layers are down_proj, gate_proj, k_proj, "
    with pytest.raises(ValueError, match=message):
        add_adapter(model, replace(RECIPE, target_modules=["q_proj", "query"]))


def test_a_full_disk_is_told_as_one(model, small_disk):
    from aliquot.finetuning.adapter import add_adapter, save_adapter

    big = replace(RECIPE, rank=64)
    with pytest.raises(OSError, match="No space left on device"):
        save_adapter(add_adapter(model, big), small_disk / "adapter")
    with pytest.raises(OSError, match="No space left on device"):
        finetune(model, annotated(), big, CPU, small_disk)


def test_float16_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="use bfloat16 or float32"):
        finetune(replace(model, dtype="float16"), annotated(), RECIPE, CPU, tmp_path)


@pytest.mark.slow
def test_bfloat16_trains_its_adapter_in_float32(model, tmp_path):
    adapter = finetune(replace(model, dtype="bfloat16"), annotated(), RECIPE, CPU, tmp_path)
    assert all(w.dtype == np.float32 for w in weights(adapter).values())
    assert np.isfinite(adapter.loss)


@pytest.mark.slow
def test_four_bit_weights_train_an_adapter_that_stays_apart(real_data, tmp_path):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: no 4-bit weights")
    from aliquot.finetuning.adapter import load_finetuned

    whole = Model(str(real_data / "models" / "tinystories-656k-llama"), dtype="bfloat16")
    model = replace(whole, quantization=NF4())
    assert model.load().get_memory_footprint() < 0.6 * whole.load().get_memory_footprint()
    recipe = replace(RECIPE, target_modules="auto", epochs=6, gradient_checkpointing=True)
    adapter = finetune(model, annotated(), recipe, CPU, tmp_path)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert adapter.loss < 0.5 * first
    layers = {type(module).__name__ for module in load_finetuned(model, adapter).modules()}
    assert "Linear4bit" in layers  # not merged


@pytest.mark.slow
def test_importing_stays_light():
    code = "import sys, aliquot.finetuning.run, aliquot.evaluation.run; print([m for m in sys.modules if m in %r])"
    heavy = ["torch", "transformers", "peft", "pytorch_lightning", "lm_eval", "datasets"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.strip() == "[]"
