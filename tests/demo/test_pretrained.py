"""The shipped model: it loads, it is small, and its fast training pass is the library's own function."""

from __future__ import annotations

import logging

import pytest

from aliquot.demo import MODEL, TASKS

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_model_loads_and_is_small() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 8_000_000
    assert (MODEL / "model.safetensors").exists() and (MODEL / "README.md").exists()
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    assert model.config.model_type == "llama" and len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token == "<|endoftext|>" and tokenizer.pad_token == "<|pad|>"
    ids = tokenizer("What is 3 plus 14?\nAnswer:")["input_ids"]
    assert tokenizer.decode(ids) == "What is 3 plus 14?\nAnswer:"
    assert tokenizer.bos_token_id not in ids


def test_digits_are_tokens() -> None:
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(MODEL).tokenize("407") == ["4", "0", "7"]


def test_fast_pass_is_the_library_function() -> None:
    from aliquot.demo.fast import Fast
    from aliquot.demo.pretrain import Recipe, build_model

    model = build_model(Recipe(vocab_size=300, hidden_size=32, layers=2, heads=2, intermediate_size=48))
    ids = torch.arange(40).view(2, 20) * 7 % 300
    with torch.no_grad():
        own, library = Fast(model, 20, torch.float32).logits(ids), model(input_ids=ids).logits
    assert torch.allclose(own, library, atol=1e-4)


@pytest.mark.slow
def test_lm_eval_finds_both_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False, include_path=[str(TASKS)])
    tasks = manager.load(["demo_mmlu", "demo_bbh"])["tasks"]
    assert sum(name.startswith("demo_mmlu_") for name in tasks) == 57
    assert sum(name.startswith("demo_bbh_") for name in tasks) == 27
    assert {len(tasks[name].test_docs()) for name in tasks if name.startswith("demo_bbh_")} == {40}


@pytest.mark.slow
def test_recipe_makes_blocks_of_text() -> None:
    """Train a small tokenizer and pack: every block has the recipe's shape, and its text is the corpus's."""
    from itertools import islice

    from aliquot.demo.corpus import documents
    from aliquot.demo.pretrain import EOS, Recipe, batches, rate, train_tokenizer

    recipe = Recipe(vocab_size=500, tokenizer_documents=300, batch=2, sequence=64)
    tokenizer = train_tokenizer(recipe)
    blocks = list(islice(batches(tokenizer, recipe), 3))
    assert {tuple(block.shape) for block in blocks} == {(2, 64)}
    text = tokenizer.decode(torch.cat(blocks).flatten().tolist())
    assert text.startswith(EOS + next(iter(documents(recipe.seed + 1)))[:60])
    assert rate(recipe, 0.0, recipe.warmup_steps) == 1.0 and rate(recipe, 1.0, 10**6) == pytest.approx(0.02)


def test_card_tells_the_run() -> None:
    import json

    run = json.loads((MODEL / "pretraining.json").read_text(encoding="utf-8"))
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    assert f"{run['tokens']:,}" in card and f"{run['loss']:.4f}" in card
    assert run["tokens"] == run["steps"] * run["recipe"]["batch"] * run["recipe"]["sequence"]
