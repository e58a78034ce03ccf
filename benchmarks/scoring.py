"""The scoring pass against a bare loop and against `generate`, side by side.

    python benchmarks/scoring.py [--new-tokens 8] [--prompts 8000] [--rounds 3] [--threads 2]
    python benchmarks/scoring.py --pool FILE --model DIRECTORY --max-tokens 512

Each contestant runs in a process of its own and starts from texts: it loads the model, tokenizes and reads all prompts.
- `aliquot`: `score`, which also pools features, takes token statistics and writes shards and arrays.
- `bare loop`: prefill and greedy decoding of the same batches and nothing else, not even an end of a response.
- `generate`: transformers' own, in pool order, padded to the longest of each batch, keeping the logits.
Counted are seconds from loading to the last array, and tokens per second: those of the prompts, and those that the
contestant generated; what a bare loop generates behind the end of a response counts as well. Contestants take turns,
and the best round counts; every round is a row of measured_scoring.csv.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not burn a core

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import contest
import torch

from aliquot.models.spec import Model
from aliquot.pools.prepare import load_pool
from aliquot.pools.spec import JsonlPool
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.batching import encode, plan_batches
from aliquot.scoring.module import ScoringModule  # noqa: F401  imports Lightning before the clock starts
from aliquot.scoring.run import load_scores, score
from aliquot.scoring.spec import Scorer
from aliquot.types import Pool

GENERATE_BATCH = 64
COLUMNS = ("pool", "model", "prompts", "prompt_tokens", "new_tokens", "tokens_per_batch", "threads", "contestant")
COLUMNS += ("round", "wall_s", "cpu_s", "generated", "tokens_s", "peak_gb", "load", "machine")


def run_aliquot(model: Model, pool: Pool, scorer: Scorer) -> int:
    with tempfile.TemporaryDirectory() as directory:
        score(model, pool, scorer, TrainerSpec("cpu"), Path(directory))
        tokens = load_scores(Path(directory)).tokens
        return int(tokens.lengths.sum()) if tokens else 0


@torch.inference_mode()
def run_bare_loop(model: Model, pool: Pool, scorer: Scorer) -> int:
    network, tokenizer = model.load(), model.load_tokenizer()
    encoded = encode(model, tokenizer, pool.prompts, model.max_tokens - scorer.max_new_tokens)
    for rows in plan_batches(encoded.lengths, scorer.max_new_tokens, scorer.tokens_per_batch):
        tokens, mask = map(torch.from_numpy, encoded.padded(rows, tokenizer.pad_token_id, "left"))
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = None
        for _ in range(scorer.max_new_tokens):
            output = network(
                tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
            )
            tokens, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions[:, -1:] + 1
    return len(pool) * scorer.max_new_tokens


@torch.inference_mode()
def run_generate(model: Model, pool: Pool, scorer: Scorer) -> int:
    network, tokenizer = model.load(), model.load_tokenizer()
    room, generated = model.max_tokens - scorer.max_new_tokens, 0
    encoded = [ids[-room:] for ids in model.encode_prompts(tokenizer, pool.prompts)]
    for start in range(0, len(encoded), GENERATE_BATCH):
        inputs = tokenizer.pad(
            {"input_ids": encoded[start : start + GENERATE_BATCH]}, padding_side="left", return_tensors="pt"
        )
        answers = network.generate(
            **inputs,
            max_new_tokens=scorer.max_new_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        generated += answers.logits[0].shape[0] * len(answers.logits)
    return generated


def per_core(row: Mapping[str, float]) -> float:
    """Return tokens per core-second, which suffer less than tokens per second from what else the machine does."""
    return (row["prompt_tokens"] + row["generated"]) / row["cpu_s"]


CONTESTANTS: dict[str, Callable[[Model, Pool, Scorer], int]] = {
    "aliquot": run_aliquot,
    "bare loop": run_bare_loop,
    "generate": run_generate,
}


def run_one(name: str, model: Model, pool: Pool, scorer: Scorer) -> dict[str, float]:
    """Let one contestant run in this process."""
    encoded = encode(model, model.load_tokenizer(), pool.prompts, model.max_tokens - scorer.max_new_tokens)
    wall, cpu = time.perf_counter(), time.process_time()
    generated = CONTESTANTS[name](model, pool, scorer)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    prompt_tokens = int(encoded.lengths.sum())
    return {
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "prompt_tokens": prompt_tokens,
        "generated": generated,
        "tokens_s": round((prompt_tokens + generated) / wall),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pkg://aliquot.demo/model")
    parser.add_argument("--max-tokens", type=int, default=Model.max_tokens)
    parser.add_argument("--pool", default="pkg://aliquot.demo/pool.jsonl.gz")
    parser.add_argument("--prompts", type=int, default=8000)
    parser.add_argument("--new-tokens", type=int, default=Scorer.max_new_tokens)
    parser.add_argument("--tokens-per-batch", type=int, default=Scorer.tokens_per_batch)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CONTESTANTS, action="append", help="several may be given")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_name("measured_scoring.csv"))
    parser.add_argument("--alone", choices=CONTESTANTS, help="run one contestant here and print its figures")
    options = parser.parse_args()

    scorer = Scorer(max_new_tokens=options.new_tokens, tokens_per_batch=options.tokens_per_batch)
    if options.alone:
        torch.set_num_threads(options.threads)
        model = Model(options.model, max_tokens=options.max_tokens)
        pool = load_pool(JsonlPool(options.pool, limit=options.prompts))
        print(json.dumps(run_one(options.alone, model, pool, scorer)))
        return
    given = ("model", "max_tokens", "pool", "prompts", "new_tokens", "tokens_per_batch", "threads")
    arguments = [text for name in given for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]
    names = options.only or list(CONTESTANTS)
    settings = {
        "pool": Path(options.pool).name,
        "model": Path(options.model).name,
        **{name: getattr(options, name) for name in ("prompts", "new_tokens", "tokens_per_batch", "threads")},
    }
    rows = [
        {**settings, "contestant": name, "round": i, **contest.run_apart(*arguments, "--alone", name, quiet=True)}
        for i in range(options.rounds)
        for name in names
    ]
    contest.append(options.csv, [{**row, "machine": contest.machine()} for row in rows], COLUMNS)

    best = {
        name: min((row for row in rows if row["contestant"] == name), key=lambda row: row["wall_s"]) for name in names
    }
    print(f"{settings}, best of {options.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    titles = ("wall s", "core-s", "tokens/s", "peak GB", "tokens/s: aliquot ahead", "per core-s")
    print(" " * 12 + "".join(f"{title:>{len(title) + 3}}" for title in titles))
    for name, row in best.items():
        ahead = best[names[0]]["tokens_s"] / row["tokens_s"], per_core(best[names[0]]) / per_core(row)
        figures = (f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}", f"{row['tokens_s']:,}", f"{row['peak_gb']:.2f}")
        cells = zip(titles, (*figures, *(f"{ratio:.2f}x" for ratio in ahead)), strict=True)
        print(f"{name:12}" + "".join(f"{cell:>{len(title) + 3}}" for title, cell in cells))


if __name__ == "__main__":
    main()
