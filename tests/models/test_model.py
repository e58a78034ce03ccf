"""What a model is, and what is refused before anything is loaded."""

import gc
import json
import re
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from aliquot.models.quantization import NF4
from aliquot.models.spec import Model
from aliquot.runtime.garbage import collect_rarely
from aliquot.runtime.trainer import TrainerSpec
from aliquot.store.store import canonical
from tiny_model import FAMILIES, save_tiny_model


@pytest.fixture
def model(tmp_path):
    return Model(str(save_tiny_model(tmp_path)))


def test_a_hub_model_needs_a_commit():
    with pytest.raises(ValueError, match=r"model.revision=main is not a commit.*huggingface.co/org/name/commits/main"):
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
    with pytest.raises(ValueError, match=r"has no tokenizer \(tokenizer.json, .*\); add it"):
        model.check()


def test_a_file_of_another_program_beside_shards_is_no_matter(tmp_path):
    one = save_tiny_model(tmp_path / "one")
    AutoModelForCausalLM.from_pretrained(one).save_pretrained(tmp_path / "several", max_shard_size="20KB")
    for file in one.glob("tokenizer*"):
        (tmp_path / "several" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "several" / "a.gguf").write_bytes(b"GGUF")
    assert not (tmp_path / "several" / "model.safetensors").exists()
    Model(str(tmp_path / "several")).check()


def test_the_first_network_of_a_process_is_freed_although_it_is_in_a_cycle(model):
    collect_rarely()
    network = model.load()
    network.register_forward_hook(network.get_input_embeddings)
    alive = weakref.ref(network)
    del network
    gc.collect()
    assert alive() is None


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
    for module in ("spec", "quantization"):
        monkeypatch.setattr(f"aliquot.models.{module}.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package flash-attn, .* or use model.attention=sdpa"):
        flash.check()
    with pytest.raises(ValueError, match=r"needs a GPU and the package bitsandbytes, .* use model/quantization=none"):
        replace(model, quantization=NF4()).check()
    monkeypatch.setattr("aliquot.models.spec.find_spec", lambda name: name == "flash_attn")
    with pytest.raises(ValueError, match=r"computes in 16 bits only; set model.dtype=bfloat16"):
        flash.check()
    monkeypatch.setattr("aliquot.models.quantization.find_spec", lambda name: name == "bitsandbytes")
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


@pytest.mark.slow
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


def refusal(model):
    """Return the one line with which `check` refuses."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as refused:
        model.check()
    return str(refused.value)


def damage(folder, change):
    """Rewrite the weights; `change` takes their names and tensors."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def drop_three(weights):
    for name in sorted(weights)[-3:]:
        del weights[name]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_are_missing_are_refused_and_never_made_up(tmp_path, family):
    model = Model(str(save_tiny_model(tmp_path, family=family)))
    model.check()
    names = set(load_file(tmp_path / "model.safetensors"))
    damage(tmp_path, drop_three)
    first = min(names - set(load_file(tmp_path / "model.safetensors")))
    message = refusal(model)
    assert f"3 of its weights ({first} first) are not in its files, and would be random numbers" in message
    with pytest.raises(ValueError, match="would be random numbers"):
        model.load()


def test_a_model_without_an_output_layer_is_told_what_it_was_saved_as(model, tmp_path):
    damage(tmp_path, lambda weights: weights.pop("lm_head.weight"))
    assert "would be random numbers; copy the files again" in refusal(model)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForSequenceClassification"]}))
    told = refusal(model)
    assert "a LlamaForSequenceClassification was saved: give a model that was saved as a LlamaForCausalLM" in told


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("gpt2", ["transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"]),
        ("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq"]),
        ("gpt_neox", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.masked_bias"]),
        ("opt", ["model.decoder.version"]),
    ],
)
def test_masks_and_versions_of_earlier_transformers_are_no_weights(tmp_path, family, names):
    model = Model(str(save_tiny_model(tmp_path, family=family)))
    damage(tmp_path, lambda weights: weights.update({name: torch.ones(1) for name in names}))
    model.check()


@pytest.mark.slow
def test_weights_of_another_shape_or_of_more_layers_are_refused(model, tmp_path):
    kept = (tmp_path / "config.json").read_text()
    config = json.loads(kept)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    assert "9 of its weights (model.layers.1.input_layernorm.weight first) are in its files and have no" in refusal(
        model
    )
    (tmp_path / "config.json").write_text(kept)
    damage(tmp_path, lambda weights: weights.update({"model.norm.weight": torch.ones(5)}))
    for refuses in (model.check, model.load):
        with pytest.raises(
            ValueError, match=r"1 of its weights \(model.norm.weight\) .*, \(5,\) where \(32,\) belongs"
        ):
            refuses()


@pytest.mark.slow
def test_tied_weights_may_be_absent_and_heads_of_other_tasks_are_no_matter(tmp_path):
    model = Model(str(save_tiny_model(tmp_path, family="gpt2")))
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    before = model.load().state_dict()

    def as_on_the_hub(weights):
        """Take the prefix away, as in openai-community/gpt2, and put a head of a classifier on."""
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)
        weights["score.weight"] = torch.ones(2, 32)

    damage(tmp_path, as_on_the_hub)
    model.check()
    after = model.load().state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    damage(tmp_path, lambda weights: weights.update({"h.2.ln_1.weight": torch.ones(32)}))
    assert "1 of its weights (h.2.ln_1.weight) are in its files and have no place" in refusal(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", "{", r"config.json is damaged, Expecting property name"),
        ("config.json", "[]", r"config.json holds a list where a json object belongs"),
        ("config.json", '{"model_type": "llama9"}', r"cannot be loaded: .*`llama9`.* install a later one"),
        ("tokenizer.json", '{"version"', r"tokenizer.json is damaged, Expecting"),
        ("tokenizer.json", '{"version": "1.0"}', r"cannot be loaded: "),
        ("model.safetensors", "", r"model.safetensors \(0 bytes\) is damaged: .*; copy it again"),
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1", r"\(42 bytes\) is damaged: .*git lfs pull"),
    ],
)
def test_a_damaged_file_is_told_before_anything_starts(model, tmp_path, name, content, told):
    model.check()
    (tmp_path / name).write_text(content)
    assert re.search(told, refusal(model))


def test_weights_that_were_cut_off_are_told_with_the_file(model, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert str(file) in refusal(model)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_settings_of_a_tokenizer_are_no_tokenizer(tmp_path, family):
    model = Model(str(save_tiny_model(tmp_path, family=family)))
    (tmp_path / "tokenizer.json").unlink()
    assert (tmp_path / "tokenizer_config.json").is_file()
    assert "has no tokenizer (tokenizer.json, " in refusal(model)
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("")
    assert "cannot be loaded" in (message := refusal(model)) or "turns no text into tokens" in message


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_more_tokens_than_the_model_has_positions_are_refused(tmp_path, family):
    model = Model(str(save_tiny_model(tmp_path, family=family)), max_tokens=257)
    if family == "t5":
        model.check()  # its positions are relative
    else:
        assert "model.max_tokens=257 asks for 257 positions, the model has 256; set" in refusal(model)
    replace(model, max_tokens=256).check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stated", "rope", "positions"),
    [
        (512, {"rope_type": "linear", "factor": 4.0}, 2048),
        (512, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
        (2048, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
        (2048, {"rope_type": "default"}, 2048),
    ],
)
def test_positions_that_were_stretched_count(model, tmp_path, stated, rope, positions):
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"max_position_embeddings": stated, "rope_scaling": rope}
    (tmp_path / "config.json").write_text(json.dumps(config))
    replace(model, max_tokens=positions).check()
    assert f"set model.max_tokens={positions}" in refusal(replace(model, max_tokens=positions + 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stated", "rope"),
    [
        (64, {"rope_type": "dynamic", "factor": 4.0}),
        (
            256,
            {
                "rope_type": "longrope",
                "short_factor": [1.0] * 8,
                "long_factor": [2.0] * 8,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
        (
            256,
            {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factor": 4.0},
        ),
    ],
)
def test_rows_whose_rotary_frequencies_would_depend_on_their_batch_are_refused(model, tmp_path, stated, rope):
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"max_position_embeddings": stated, "rope_scaling": rope}
    if rope["rope_type"] == "longrope" and "original_max_position_embeddings" not in rope:  # as Phi-3 writes it
        config["original_max_position_embeddings"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = refusal(replace(model, max_tokens=65))
    assert f"beyond 64 the rotary frequencies of {tmp_path} (rope_type {rope['rope_type']})" in told
    assert "set model.max_tokens=64" in told
    within = replace(model, max_tokens=64)
    within.check()
    # The bound is where transformers' own readings of one row begin to depend on another.
    network = model.load()
    torch.manual_seed(0)
    short = torch.randint(4, 27, (1, 20))
    for width, same in ((64, True), (65, False)):
        padded = torch.cat([torch.zeros(1, width - 20, dtype=torch.long), short], dim=1)
        both = torch.cat([padded, torch.randint(4, 27, (1, width))])
        mask = torch.ones_like(both)
        mask[0, : width - 20] = 0
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        with torch.inference_mode():
            together = network(both, attention_mask=mask, position_ids=positions).logits[0, -1]
            alone = network(short).logits[0, -1]
        assert torch.allclose(together, alone, atol=1e-4) == same


@pytest.mark.slow
def test_an_encoder_decoder_begins_its_responses_as_its_generation_config_says(tmp_path):
    model = Model(str(save_tiny_model(tmp_path, family="t5")))
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"decoder_start_token_id": None}))
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(generation | {"decoder_start_token_id": 1}))
    model.check()
    assert model.load().config.decoder_start_token_id == model.encoding(model.load_tokenizer()).decoder_start == 1
    (tmp_path / "generation_config.json").unlink()
    assert "neither its config.json nor its generation_config.json has a decoder_start_token_id" in refusal(model)


def test_what_lies_in_a_folder_instead_of_a_model_is_named_with_what_to_do(model, tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert "is an adapter of org/base, not a model: load that as BASE" in refusal(model)
    (tmp_path / "adapter_config.json").unlink()
    weights = tmp_path / "model.safetensors"
    shard = weights.rename(tmp_path / "model-00001-of-00002.safetensors")
    told = refusal(model)
    assert f"holds {shard.name} and neither model.safetensors nor model.safetensors.index.json" in told
    for name in ("model-Q4.GGUF", "model-Q4.gguf"):
        shard = shard.rename(tmp_path / name)
        assert f"give the file itself, model.path=FOLDER/{name}" in refusal(model)
    (tmp_path / "config.json").unlink()
    assert "give the file itself" in refusal(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_to_nothing_is_told_with_how_to_copy_what_it_leads_to(model, tmp_path, name):
    blob = (tmp_path / name).rename(tmp_path.parent / "blob")
    (tmp_path / name).symlink_to(blob)
    (tmp_path / "pytorch_model.bin").symlink_to("nothing")  # is not read
    model.check()
    blob.unlink()
    assert f"{tmp_path / name} is a link to {blob}, which is missing" in refusal(Model(str(tmp_path)))


@pytest.mark.parametrize("index", [{}, {"weight_map": None}, {"weight_map": ["a"]}])
def test_an_index_that_says_nothing_of_files_is_refused(model, tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors.index.json has no weight_map" in refusal(model)


def test_a_model_that_brings_its_own_code_is_told_how_to_let_it_run(model, tmp_path):
    config = json.loads((tmp_path / "config.json").read_text())
    names = {"AutoConfig": "own_config.OwnConfig", "AutoModelForCausalLM": "own_model.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "own_llama", "auto_map": names}))
    (tmp_path / "own_config.py").write_text(
        "from transformers import LlamaConfig\nclass OwnConfig(LlamaConfig):\n    model_type = 'own_llama'\n"
    )
    (tmp_path / "own_model.py").write_text(
        "from transformers import LlamaForCausalLM\nfrom .own_config import OwnConfig\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    assert "set model.trust_remote_code=true to let it run" in refusal(model)
    replace(model, trust_remote_code=True).check()


def test_a_family_that_does_not_read_and_write_text_alone_is_named(model, tmp_path):
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper", "is_encoder_decoder": True}))
    assert "is a whisper, of which transformers has no model that reads and writes text alone" in refusal(model)
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 5}))
    assert "The hidden size" in refusal(Model(str(tmp_path)))


def test_a_tokenizer_that_needs_sentencepiece_says_so(model, tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(b"words")
    monkeypatch.setattr("aliquot.models.files.find_spec", lambda name: None)
    told = refusal(model)
    assert "has its tokenizer in sentencepiece's format only (tokenizer.model)" in told
    assert "pip install sentencepiece" in told


def test_an_attention_that_the_family_has_not_is_refused_with_the_one_it_has(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(save_tiny_model(tmp_path))
    options = {"vocab_size": len(tokenizer), "hidden_size": 32, "n_layer": 1, "n_head": 2, "eos_token_id": 2}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("bloom", **options)).save_pretrained(tmp_path)
    model = Model(str(tmp_path))
    assert "model.attention=sdpa is not available" in refusal(model)
    assert "a bloom; set model.attention=eager" in refusal(model)
    replace(model, attention="eager").check()
