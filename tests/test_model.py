"""What a model is, and what is refused before anything is loaded."""

import json
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from aliquot.model import Model
from aliquot.quantization import NF4
from aliquot.store import canonical
from aliquot.trainer import TrainerSpec
from tiny_model import FAMILIES, save_tiny_model


@pytest.fixture
def model(tmp_path):
    return Model(str(save_tiny_model(tmp_path)))


def test_a_hub_model_needs_a_commit():
    with pytest.raises(ValueError, match=r"model.revision=main is no commit.*huggingface.co/org/name/commits/main"):
        Model("org/name", revision="main").check()
    pinned = Model("org/name", revision="a" * 40)
    assert pinned.identity()["weights"] == f"org/name@{'a' * 40}"


def test_the_identity_is_of_what_defines_the_model(model, tmp_path):
    before = model.identity()
    (tmp_path / "README.md").write_text("more words")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config.json").write_text("{}")
    assert model.identity() == before
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    assert model.identity() != before


def test_an_incomplete_directory_is_refused_with_what_is_missing(model, tmp_path):
    model.check()
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"lacks 1 of the files .* model-2.safetensors first"):
        model.check()
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ValueError, match="has no tokenizer; add it"):
        model.check()


def test_what_the_hub_does_not_give_out_is_told_with_the_remedy(monkeypatch):
    def refuse(*args, **options):
        raise OSError("You are trying to access a gated repo.\nMore")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(ValueError, match=r"org/name at revision abcdef0 .* gated repo. Check id.*hf auth login"):
        Model("org/name", revision="abcdef0").load_tokenizer()


def test_a_tokenizer_without_an_end_is_refused(model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        replace(model).load_tokenizer()


@pytest.mark.parametrize("accelerator", ["warp", "tpu"])
def test_an_accelerator_that_is_not_here_is_refused(accelerator):
    with pytest.raises(ValueError, match=rf"trainer.accelerator={accelerator} cannot be used here"):
        TrainerSpec(accelerator).check()
    TrainerSpec("auto").check()


def test_what_this_machine_cannot_compute_is_refused_with_what_to_install_or_set(model, monkeypatch):
    flash = replace(model, attention="flash_attention_2")
    for module in ("model", "quantization"):
        monkeypatch.setattr(f"aliquot.{module}.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package flash-attn, .* or use model.attention=sdpa"):
        flash.check()
    with pytest.raises(ValueError, match=r"needs a GPU and the package bitsandbytes, .* use model/quantization=none"):
        replace(model, quantization=NF4()).check()
    monkeypatch.setattr("aliquot.model.find_spec", lambda name: name == "flash_attn")
    with pytest.raises(ValueError, match=r"computes in 16 bits only; set model.dtype=bfloat16"):
        flash.check()
    monkeypatch.setattr("aliquot.quantization.find_spec", lambda name: name == "bitsandbytes")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"model/quantization=nf4 needs a GPU, and torch finds none"):
        replace(model, quantization=NF4()).check()


def test_whatever_moves_a_result_is_in_the_identity(model):
    changes = [
        {"dtype": "bfloat16"},
        {"attention": "eager"},
        {"quantization": NF4()},
        {"quantization": NF4(double_quant=False)},
        {"template": "{prompt} {response}"},
        {"max_tokens": 255},
        {"overlong": "cut_end"},
    ]
    texts = {json.dumps(canonical(replace(model, **change))) for change in [{}, *changes]}
    assert len(texts) == len(changes) + 1
    assert replace(model, trust_remote_code=True).identity() == model.identity()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_computed_as_asked_for(model, attention):
    assert replace(model, attention=attention).load().config._attn_implementation == attention


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_loaded_as_what_it_is(tmp_path, family):
    model = Model(str(save_tiny_model(tmp_path, family=family)))
    network, skeleton = model.load(), model.load_skeleton()
    assert model.family() == network.config.model_type == family
    assert network.config.is_encoder_decoder == (family == "t5")
    assert (model.encoding(model.load_tokenizer()).decoder_start is None) == (family != "t5")
    assert {name: p.shape for name, p in network.named_parameters()} == {
        name: p.shape for name, p in skeleton.named_parameters()
    }
    assert all(p.is_meta for p in skeleton.parameters())


def test_pickled_weights_are_refused(model, tmp_path):
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds pickled weights only \(pytorch_model.bin\), .* save_pretrained"):
        model.check()
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"holds no weights \(model.safetensors or model.safetensors.index.json\)"):
        model.check()
