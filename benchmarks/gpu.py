"""Tokens per second of the scoring pass and of finetuning at the shapes of real models, with random weights.

    python benchmarks/gpu.py --shape 1b --shape 7b      # on a GPU; one command writes the rows of the table
    python benchmarks/gpu.py --shape tiny               # anywhere, in a minute: does it run?

Each job runs in a process of its own, as a user would run it: `score` and `finetune` on texts, here those of the demo
pool, strung together to the lengths of instruction data (log-normal, median 65 tokens, tenth longest over 440). The
clock runs from the model in place to the last array on disk. Model FLOPs are those that the method needs: 2 per weight
and token read, the attention of a causal model (2 layers x width x length^2 of a prompt), and for LoRA as much again
for the backward pass, since the frozen weights need no gradients. Utilization is their share of the device's dense
peak. Every row is added to measured_gpu.csv and printed as a row of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import contest
import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from aliquot.finetuning.recipe import LoRA
from aliquot.finetuning.run import finetune
from aliquot.models.spec import Model
from aliquot.pools.prepare import load_pool
from aliquot.pools.spec import JsonlPool
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.batching import encode
from aliquot.scoring.run import load_scores, score
from aliquot.scoring.spec import Scorer
from aliquot.types import AnnotatedSet, Pool

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
VOCABULARY, POSITIONS = 32000, 2048
#: Dense bf16 TFLOP/s of the data sheets.
PEAK = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
RECIPE = LoRA(
    rank=256, alpha=256, dropout=0.1, target_modules="auto", learning_rate=1e-4, warmup=0.03, schedule="linear",
    weight_decay=0.0, epochs=1, tokens_per_batch=16384, accumulate=1, rows_per_step=None, max_grad_norm=1.0, seed=0,
    checkpoint_every=10**6, gradient_checkpointing=True,
)  # fmt: skip
COLUMNS = ("shape", "job", "device", "parameters", "prompts", "read", "generated", "tokens_per_batch", "seconds")
COLUMNS += ("tokens_s", "tflops", "utilization", "peak_gb", "machine")
in_place: list[float] = []  # when the model was


@dataclass(frozen=True)
class RandomModel(Model):
    """A LLaMA of a given shape with random weights on the device, and the demo's tokenizer."""

    shape: str = "tiny"

    def load_config(self) -> LlamaConfig:
        return LlamaConfig(
            **SHAPES[self.shape], vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, tie_word_embeddings=False
        )

    def load(self):
        torch.manual_seed(0)
        with torch.device(device()):
            network = AutoModelForCausalLM.from_config(self.load_config(), dtype=self.dtype).eval()
        in_place.append(time.perf_counter())
        return network


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def texts(model: Model, count: int) -> list[str]:
    """String demo prompts together to the lengths of instruction data."""
    rng = np.random.default_rng(0)
    prompts = load_pool(JsonlPool(model.path.replace("/model", "/pool.jsonl.gz"), limit=4000)).prompts
    mean = encode(model, model.load_tokenizer(), prompts, POSITIONS).lengths.mean()
    wanted = rng.lognormal(np.log(65), 1.5, count).clip(mean, POSITIONS - 200)
    return [" ".join(rng.choice(prompts, max(1, round(length / mean)))) for length in wanted]


def flops(parameters: int, lengths: np.ndarray) -> float:
    """Return the operations of one forward pass over texts of these lengths."""
    return 2.0 * parameters * lengths.sum()


def attention_flops(shape: dict[str, int], lengths: np.ndarray) -> float:
    """Return those of causal attention: two products with half a length x length matrix in every layer."""
    return 2.0 * shape["num_hidden_layers"] * shape["hidden_size"] * float((lengths.astype(float) ** 2).sum())


def run(job: str, shape: str, count: int, tokens_per_batch: int, new_tokens: int) -> dict[str, float | str]:
    """Run one job in this process; return its row."""
    model = RandomModel("pkg://aliquot.demo/model", dtype="bfloat16", max_tokens=POSITIONS, shape=shape)
    prompts = texts(model, count)
    lengths = encode(model, model.load_tokenizer(), prompts, POSITIONS - new_tokens).lengths
    ids = [str(i) for i in range(count)]
    generated = 0
    with tempfile.TemporaryDirectory() as directory:
        if job == "score":
            scorer = Scorer(max_new_tokens=new_tokens, tokens_per_batch=tokens_per_batch)
            score(model, Pool("texts", ids, prompts), scorer, TrainerSpec(), Path(directory))
            tokens = load_scores(Path(directory)).tokens
            assert tokens
            generated = int(tokens.lengths.sum())
        else:
            recipe = LoRA(**{**vars(RECIPE), "tokens_per_batch": tokens_per_batch})
            answers = AnnotatedSet(ids, prompts, ["the blue bird likes the old house"] * count)
            adapter = finetune(model, answers, recipe, TrainerSpec(), Path(directory))
            lengths = (
                lengths + json.loads((adapter.path.parent / "finetune.json").read_text())["response_tokens"] // count
            )
        seconds = time.perf_counter() - in_place[-1]
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(model.load_config())
    parameters = sum(weights.numel() for weights in network.parameters())
    body = parameters - VOCABULARY * SHAPES[shape]["hidden_size"] * 2  # without embeddings and output layer
    if job == "score":  # the output layer reads one position for every generated token
        needed = flops(body, lengths) + attention_flops(SHAPES[shape], lengths)
        needed += 2.0 * (body * (generated - count) + VOCABULARY * SHAPES[shape]["hidden_size"] * generated)
    else:
        needed = 2 * (flops(body, lengths) + attention_flops(SHAPES[shape], lengths))
    on_gpu = device() == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    peak = next((value for key, value in PEAK.items() if key in name), None)
    return {
        "shape": shape,
        "job": job,
        "device": name,
        "parameters": parameters,
        "prompts": count,
        "read": int(lengths.sum()),
        "generated": generated,
        "tokens_per_batch": tokens_per_batch,
        "seconds": round(seconds, 2),
        "tokens_s": round((lengths.sum() + generated) / seconds),
        "tflops": float(f"{needed / seconds / 1e12:.4g}"),
        "utilization": round(needed / seconds / 1e12 / peak, 3) if peak else "",
        "peak_gb": round(peak_bytes(on_gpu) / 1e9, 2),
        "machine": "one GPU" if on_gpu else contest.machine(),
    }


def peak_bytes(on_gpu: bool) -> int:
    return torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, action="append", required=True, help="several may be given")
    parser.add_argument("--job", choices=("score", "finetune"), action="append", help="one of the two only")
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--new-tokens", type=int, default=Scorer.max_new_tokens)
    parser.add_argument("--tokens-per-batch", type=int, default=Scorer.tokens_per_batch)
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_name("measured_gpu.csv"))
    parser.add_argument("--alone", action="store_true", help="run one job here and print its figures")
    options = parser.parse_args()
    jobs = options.job or ["score", "finetune"]
    if options.alone:
        row = run(jobs[0], options.shape[0], options.prompts, options.tokens_per_batch, options.new_tokens)
        print(json.dumps(row))
        return
    sizes = [
        f"--{name}={getattr(options, name.replace('-', '_'))}" for name in ("prompts", "new-tokens", "tokens-per-batch")
    ]
    for shape in options.shape:
        for job in jobs:
            row = contest.run_apart("--alone", "--shape", shape, "--job", job, *sizes)
            contest.append(options.csv, [row], COLUMNS)
            shown = ("shape", "job", "device", "tokens_s", "tflops", "utilization", "peak_gb")
            print("| " + " | ".join(str(row[name]) for name in shown) + " |", flush=True)


if __name__ == "__main__":
    main()
