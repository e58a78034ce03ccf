"""The scoring pass against a bare loop and against `generate`, side by side in one run.

    python benchmarks/scoring.py [--prompts 8000] [--rounds 3] [--threads 2]

Each contender starts from texts: it loads the model, tokenises and reads all prompts with 8 new tokens at most.
- `aliquot`: `score`, which also pools features, takes token statistics and writes shards and arrays.
- `bare loop`: prefill and greedy decoding of the same batches and nothing else, not even an end of a response.
- `generate`: transformers' own, in pool order, padded to the longest of each batch, keeping the logits.
Wall seconds suffer from whatever else the machine does; contenders take turns, and the best round counts.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not burn a core

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from aliquot.batching import encode, plan_batches
from aliquot.model import Model
from aliquot.pool import JsonlPool
from aliquot.scoring import Scorer, score
from aliquot.scoring_module import ScoringModule  # noqa: F401  imports Lightning before the clock starts
from aliquot.trainer import TrainerSpec
from aliquot.types import Pool

GENERATE_BATCH = 64


def run_aliquot(model: Model, pool: Pool, scorer: Scorer) -> None:
    with tempfile.TemporaryDirectory() as directory:
        score(model, pool, scorer, TrainerSpec("cpu"), Path(directory))


@torch.inference_mode()
def run_bare_loop(model: Model, pool: Pool, scorer: Scorer) -> None:
    network, tokenizer = model.load(), model.load_tokenizer()
    encoded = encode(model, tokenizer, pool.prompts, model.max_tokens - scorer.max_new_tokens)
    for rows in plan_batches(encoded.lengths, scorer.max_new_tokens, scorer.tokens_per_batch):
        tokens, mask = map(torch.from_numpy, encoded.left_pad(rows, tokenizer.pad_token_id))
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = None
        for _ in range(scorer.max_new_tokens):
            output = network(
                tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
            )
            tokens, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions[:, -1:] + 1


@torch.inference_mode()
def run_generate(model: Model, pool: Pool, scorer: Scorer) -> None:
    network, tokenizer = model.load(), model.load_tokenizer()
    encoded = model.encode_prompts(tokenizer, pool.prompts)
    for start in range(0, len(encoded), GENERATE_BATCH):
        inputs = tokenizer.pad(
            {"input_ids": encoded[start : start + GENERATE_BATCH]}, padding_side="left", return_tensors="pt"
        )
        network.generate(
            **inputs,
            max_new_tokens=scorer.max_new_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )


CONTENDERS: dict[str, Callable[[Model, Pool, Scorer], None]] = {
    "aliquot": run_aliquot,
    "bare loop": run_bare_loop,
    "generate": run_generate,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pkg://aliquot.demo/model")
    parser.add_argument("--pool", default="pkg://aliquot.demo/pool.jsonl.gz")
    parser.add_argument("--prompts", type=int, default=8000)
    parser.add_argument("--tokens-per-batch", type=int, default=Scorer.tokens_per_batch)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CONTENDERS, action="append")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    model, pool = Model(options.model), JsonlPool(options.pool, limit=options.prompts).load()
    scorer = Scorer(tokens_per_batch=options.tokens_per_batch)
    names = options.only or list(CONTENDERS)
    best = {name: (float("inf"), float("inf")) for name in names}
    for _ in range(options.rounds):
        for name in names:
            wall, cpu = time.perf_counter(), time.process_time()
            CONTENDERS[name](model, pool, scorer)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])

    load = os.getloadavg()[0]
    print(f"\n{len(pool):,} prompts, {options.threads} threads, best of {options.rounds} rounds, load {load:.1f}")
    print(f"{'':12}{'wall s':>8}{'core-s':>8}{'prompts/s':>11}{'of core-s':>11}")
    for name, (wall, cpu) in best.items():
        ratio = cpu / best[names[0]][1]
        print(f"{name:12}{wall:8.1f}{cpu:8.1f}{len(pool) / wall:11,.0f}{ratio:10.2f}x")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
