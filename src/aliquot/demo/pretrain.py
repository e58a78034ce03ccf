"""The recipe of the base model: a tokenizer and a small LLaMA, trained from nothing on the text of corpus.py.

`python -m aliquot.demo.pretrain --out DIR` runs it, on the first GPU if there is one, else on the CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aliquot.demo.card import Run, Settings, write_card
from aliquot.demo.corpus import documents
from aliquot.demo.fast import Fast

EOS, PAD = "<|endoftext|>", "<|pad|>"
# A word keeps the space before it; every digit is a separate token.
PIECES = Regex(r" ?[A-Za-z]+| ?[0-9]|\n| ?[^\sA-Za-z0-9]|\s+")


@dataclass(frozen=True)
class Recipe:
    """All settings that the model depends on; the model card prints these values."""

    vocab_size: int = 1536
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 384
    context: int = 256
    sequence: int = 128
    batch: int = 16
    learning_rate: float = 3e-3
    muon_factor: float = 2.0
    weight_decay: float = 0.05
    warmup_steps: int = 200
    minutes: float = 35.0
    tokenizer_documents: int = 60_000
    seed: int = 0


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the first documents of the corpus; it adds no special tokens on its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size, special_tokens=[EOS, PAD], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(islice(documents(recipe.seed), recipe.tokenizer_documents), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS, pad_token=PAD, model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """Build the untrained model."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocab_size, hidden_size=recipe.hidden_size, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads, intermediate_size=recipe.intermediate_size,
        max_position_embeddings=recipe.context, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        pad_token_id=1,
        initializer_range=0.04,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[torch.Tensor]:
    """Yield (batch, sequence) blocks of the endless text: documents packed end to end, with an end mark before each."""
    stream = documents(recipe.seed + 1)
    size = recipe.batch * recipe.sequence
    held: list[int] = []
    while True:
        for ids in tokenizer(list(islice(stream, 2000)))["input_ids"]:
            held.append(0)
            held.extend(ids)
        while len(held) >= size:
            yield torch.tensor(held[:size]).view(recipe.batch, recipe.sequence)
            held = held[size:]


def rate(recipe: Recipe, done: float, step: int) -> float:
    """Return the share of the peak learning rate: a warmup by steps, then a cosine to 2 % over the time."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def save(out: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, run: Run) -> None:
    """Write the model directory, including its card."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(do_sample=False, bos_token_id=0, eos_token_id=0, pad_token_id=1)
    model.float().save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_card(out, run)


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() > 1 and "embed" not in name]
    embedding = [p for name, p in model.named_parameters() if p.dim() > 1 and "embed" in name]
    norms = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": embedding, "weight_decay": recipe.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.muon_factor * recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    for group in (*muon.param_groups, *adamw.param_groups):
        group["peak"] = group["lr"]
    return [muon, adamw]


def pretrain(recipe: Recipe, out: Path) -> None:
    """Run the recipe and write the model to `out`, with a copy every four minutes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = train_tokenizer(recipe)
    model = build_model(recipe).to(device).train()  # pyright: ignore[reportArgumentType]
    loss_of = torch.compile(Fast(model, recipe.sequence).loss)
    chosen = optimizers(model, recipe)
    begin, saved, smooth, seconds, step = time.perf_counter(), 0.0, 0.0, 0.0, 0
    for step, block in enumerate(batches(tokenizer, recipe)):
        seconds = time.perf_counter() - begin
        if seconds >= recipe.minutes * 60:
            break
        share = rate(recipe, seconds / (recipe.minutes * 60), step)
        loss = loss_of(block.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            for group in optimizer.param_groups:
                group["lr"] = share * group["peak"]
            optimizer.step()
            optimizer.zero_grad()
        smooth = float(loss.detach()) if step == 0 else 0.99 * smooth + 0.01 * float(loss.detach())
        if step % 200 == 0:
            print(json.dumps({"step": step, "seconds": round(seconds), "loss": round(smooth, 4)}), flush=True)
        if seconds - saved > 240:
            saved = seconds
            save(out, model, tokenizer, _facts(recipe, model, device, step + 1, seconds, smooth))
    save(out, model, tokenizer, _facts(recipe, model, device, step, seconds, smooth))


def _facts(
    recipe: Recipe, model: LlamaForCausalLM, device: torch.device, steps: int, seconds: float, loss: float
) -> Run:
    return {
        "recipe": cast(Settings, asdict(recipe)), "parameters": sum(p.numel() for p in model.parameters()),
        "device": device.type,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "steps": steps,
        "tokens": steps * recipe.batch * recipe.sequence, "seconds": round(seconds), "loss": round(loss, 4),
    }  # fmt: skip


def main() -> None:
    """Parse the two options that do not change the model's design and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=Recipe.minutes)
    options = parser.parse_args()
    pretrain(Recipe(minutes=options.minutes), options.out)


if __name__ == "__main__":
    main()
