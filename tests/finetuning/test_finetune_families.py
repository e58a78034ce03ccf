"""Every family of models is finetuned by the same code: its layers are known, and the loss is Hugging Face's own."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from test_finetune import annotated, assert_same, encoded, make_module, one_step, weights

from aliquot.finetuning.run import check_trainable, finetune
from aliquot.finetuning.targets import TARGETS, find_targets
from aliquot.models.spec import Model
from small_recipe import CPU, RECIPE
from tiny_model import FAMILIES, save_tiny_model

AUTO = replace(RECIPE, target_modules="auto", epochs=1, tokens_per_batch=50, checkpoint_every=2)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp(request.param), family=request.param)
    return Model(str(folder), template="{prompt} Answer : {response}")


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    return finetune(model, annotated(), AUTO, CPU, tmp_path_factory.mktemp("whole"))


def logits(network, model):
    import torch

    ids = torch.tensor(model.encode_prompts(model.load_tokenizer(), ["the cat sees a dog"]))
    response = {"decoder_input_ids": ids} if network.config.is_encoder_decoder else {}
    with torch.inference_mode():
        return network(input_ids=ids, **response).logits


@pytest.mark.slow
def test_the_loss_is_hugging_faces_own(model):
    import torch

    from aliquot.finetuning.examples import IGNORE, StepBatches

    examples = encoded(model, annotated(12))
    plan = one_step(examples)
    module, network = make_module(model, examples, plan, AUTO).eval(), model.load()
    (batch,) = StepBatches(examples, plan, pad=0)
    expected = 0.0
    with torch.no_grad():
        for ids, start in zip(examples.tokens, examples.prompt_lengths, strict=True):
            ids = torch.from_numpy(ids.astype("int64"))
            if network.config.is_encoder_decoder:
                read, labels = ids[:start], ids[start:]
            else:
                read, labels = ids, torch.where(torch.arange(len(ids)) < start, IGNORE, ids)
            expected += float(network(input_ids=read[None], labels=labels[None]).loss) * (len(ids) - start)
        found = sum(float(module.loss_sum(part)) for part in batch.micro_batches)
    assert len(batch.micro_batches) > 1
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's own reading of it
def test_the_adapter_changes_what_the_model_says_and_is_read_back_as_it_was_trained(model, adapter):
    import torch
    from peft import PeftModel

    from aliquot.finetuning.adapter import load_finetuned

    network = load_finetuned(model, adapter)
    merged, apart = logits(network, model), logits(PeftModel.from_pretrained(model.load(), adapter.path).eval(), model)
    torch.testing.assert_close(merged, apart, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(merged, logits(model.load(), model), atol=1e-3)
    assert not any("lora" in name for name, _ in network.named_parameters())
    half = load_finetuned(replace(model, dtype="bfloat16"), adapter)
    assert any("lora_B" in name for name, _ in half.named_parameters())
    task = json.loads((adapter.path / "adapter_config.json").read_text())["task_type"]
    assert task == ("SEQ_2_SEQ_LM" if network.config.is_encoder_decoder else "CAUSAL_LM")


@pytest.mark.slow
def test_an_adapter_of_zeros_that_claims_to_be_trained_is_found_out(model, adapter, tmp_path):
    import shutil

    from safetensors.numpy import save_file

    from aliquot.finetuning.adapter import load_finetuned

    folder = shutil.copytree(adapter.path, tmp_path / "adapter")
    dead = {name: w if "lora_B" in name else np.zeros_like(w) for name, w in weights(adapter).items()}
    save_file(dead, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="changes no logit"):
        load_finetuned(model, replace(adapter, path=folder))


@pytest.mark.slow
def test_resumed_mid_epoch_equals_undisturbed(model, adapter, tmp_path, monkeypatch):
    from aliquot.finetuning.module import LoRAModule

    train = LoRAModule.training_step

    def cut_off(self, batch, batch_idx):
        if batch.step == 3:
            raise KeyError("cut off")
        return train(self, batch, batch_idx)

    monkeypatch.setattr(LoRAModule, "training_step", cut_off)
    with pytest.raises(KeyError):
        finetune(model, annotated(), AUTO, CPU, tmp_path)
    monkeypatch.undo()
    assert adapter.steps > 4
    assert_same(finetune(model, annotated(), AUTO, CPU, tmp_path), adapter)


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_loss(model, adapter, tmp_path):
    from aliquot.finetuning.adapter import add_adapter

    recipe = replace(AUTO, gradient_checkpointing=True)
    assert any(getattr(module, "gradient_checkpointing", False) for module in add_adapter(model, recipe).modules())
    again = finetune(model, annotated(), recipe, CPU, tmp_path)
    assert again.loss == pytest.approx(adapter.loss, rel=1e-5)
    assert_same(again, adapter, tolerance=1e-4)  # where a gradient is next to 0, Adam's step is made of its rounding


#: Families by where they drop: layers of their own, settings of layers, functions in attention, whole layers.
DROPPING = {
    "gpt2": {},
    "t5": {},
    "llama": {"attention_dropout": 0.5},
    "opt": {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5},
    "bart": {"dropout": 0.5, "activation_dropout": 0.5, "encoder_layerdrop": 0.5, "decoder_layerdrop": 0.5},
}


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", DROPPING)
def test_the_base_model_drops_nothing_unless_asked_to(tmp_path, family, checkpointing):
    from aliquot.finetuning.examples import StepBatches

    folder = save_tiny_model(tmp_path, family=family)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | DROPPING[family]))
    model = Model(str(folder), template="{prompt} Answer : {response}")
    examples = encoded(model, annotated(12))
    plan = one_step(examples)
    (batch,) = StepBatches(examples, plan, pad=0)
    recipe = replace(AUTO, target_modules="all-linear", dropout=0.0, gradient_checkpointing=checkpointing)

    def losses(base_dropout):
        module = make_module(model, examples, plan, replace(recipe, base_dropout=base_dropout))
        inference = [float(module.eval().loss_sum(part).detach()) for part in batch.micro_batches]
        recomputing = [layer for layer in module.modules() if getattr(layer, "gradient_checkpointing", False)]
        assert bool(recomputing) == checkpointing
        assert all(layer.training for layer in (module.train(), *recomputing))  # else nothing is computed again
        return inference, [float(module.loss_sum(part).detach()) for part in batch.micro_batches]

    inference, training = losses(base_dropout=False)
    assert training == pytest.approx(inference, rel=1e-6)
    inference, training = losses(base_dropout=True)
    assert training != pytest.approx(inference, rel=1e-3)


@pytest.mark.slow
def test_the_dropout_of_the_adapter_stays_on_where_that_of_the_base_is_off(model):
    import torch

    from aliquot.finetuning.examples import StepBatches

    examples = encoded(model, annotated(12))
    plan = one_step(examples)
    module = make_module(model, examples, plan, replace(AUTO, dropout=0.5))
    for name, weights_ in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights_, std=0.1)
    (batch,) = StepBatches(examples, plan, pad=0)
    with torch.no_grad():
        inference = float(module.eval().loss_sum(batch.micro_batches[0]))
        training = float(module.train().loss_sum(batch.micro_batches[0]))
    assert inference != pytest.approx(training, rel=1e-4)


@pytest.mark.slow
def test_auto_names_all_linear_layers_of_the_blocks_and_says_so(model, caplog):
    with caplog.at_level(logging.INFO):
        from aliquot.finetuning.adapter import add_adapter

        network = add_adapter(model, AUTO)
    everything = add_adapter(model, replace(AUTO, target_modules="all-linear"))
    adapted, all_adapted = (
        {name for name, _ in net.named_parameters() if "lora_A" in name} for net in (network, everything)
    )
    assert adapted == all_adapted
    assert f"LoRA on {', '.join(sorted(find_targets(model.load(), ['auto'])))}: training" in caplog.text


@pytest.mark.parametrize("family", TARGETS)
def test_the_table_names_all_linear_layers_of_the_blocks_as_transformers_does(family):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from aliquot.finetuning.targets import linear_layers

    config = AutoConfig.for_model(family)
    config.num_hidden_layers = 1
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        network = kind.from_config(config)
    named = {name.rpartition(".")[2] for name in linear_layers(network)}
    assert set(find_targets(network, ["auto"])) == named


def test_an_unknown_family_is_refused_before_the_pass_with_its_layers(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    save_tiny_model(tmp_path)
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 8, "vocab_size": 27}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gptj", **shape)).save_pretrained(tmp_path)
    model = Model(str(tmp_path))
    message = (
        r"auto does not know model family 'gptj'; its linear layers are fc_in, fc_out, k_proj, out_proj, q_proj, v_"
    )
    with pytest.raises(ValueError, match=message):
        check_trainable(model, AUTO)
    check_trainable(model, replace(AUTO, target_modules="all-linear"))
    check_trainable(model, replace(AUTO, target_modules=["q_proj", "fc_in"]))
    with pytest.raises(ValueError, match="no linear layer of the model is named 'k'"):
        check_trainable(model, replace(AUTO, target_modules=["k"]))


@pytest.mark.slow
def test_layers_that_peft_refuses_are_told_before_the_pass_with_those_that_it_takes(tmp_path):
    model = Model(str(save_tiny_model(tmp_path, family="falcon_h1")), template="{prompt} Answer : {response}")
    with pytest.raises(
        ValueError, match=r"=all-linear: peft refuses it .* a falcon_h1: .*'out_proj'.* q_proj, up_proj"
    ):
        check_trainable(model, replace(AUTO, target_modules="all-linear"))
    named = replace(AUTO, target_modules=["q_proj", "v_proj", "gate_proj"])
    check_trainable(model, named)
    assert finetune(model, annotated(12), named, CPU, tmp_path / "made").steps
