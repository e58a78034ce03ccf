"""What a model reads, and what is refused before anything is loaded."""

import json
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aliquot.model import Model
from aliquot.trainer import TrainerSpec
from tiny_model import save_tiny_model


@pytest.fixture
def model(tmp_path):
    return Model(str(save_tiny_model(tmp_path)))


def llama2_like(added):
    """Return a tokenizer of letters that writes a space before every text, as LLaMA-2's does."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "\u2581", "\n", *"abcdefgh"]
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    ends = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single=added, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.mark.parametrize("added", ["$A", "<s> $A", "$A </s>", "<s> $A </s>"])
@pytest.mark.parametrize(
    ("template", "prompt", "response"),
    [
        ("{prompt}\n{response}", "\u2581ab\n", "cd"),
        ("{prompt} {response}", "\u2581ab", "\u2581cd"),
        ("{prompt}{response}", "\u2581ab", "cd"),
    ],
)
def test_a_response_is_read_where_it_stands_and_not_as_a_text_of_its_own(added, template, prompt, response):
    tokenizer, model = llama2_like(added), Model("org/name", template=template)
    begin = ["<s>"] if added.startswith("<s>") else []
    pairs = model.encode_pairs(tokenizer, ["ab", "ab"], ["cd", ""])
    first, second = [tuple(map(tokenizer.convert_ids_to_tokens, pair)) for pair in pairs]
    assert first == ([*begin, *prompt], [*response, "</s>"])
    assert second == ([*begin, *prompt], [*response.removesuffix("cd"), "</s>"])
    assert model.encode_prompts(tokenizer, ["ab"]) == [pairs[0][0]]
    assert model.num_leading(tokenizer) == len(begin)


def test_a_template_with_a_written_out_line_break_is_refused():
    with pytest.raises(ValueError, match=r"backslash and an n .* write it in a yaml"):
        Model("org/name", template="{prompt}\\n{response}")


def test_a_hub_model_needs_a_commit():
    with pytest.raises(ValueError, match=r"model.revision=main is no commit.*huggingface.co/org/name/commits/main"):
        Model("org/name", revision="main").check()
    pinned = Model("org/name", revision="a" * 40)
    pinned.check()
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


def test_more_devices_are_refused():
    with pytest.raises(ValueError, match=r"trainer.devices=2 is not supported yet"):
        TrainerSpec(devices=2)
