"""Held-out rows: logits only where they are scored, and options that share the prompt's cache, against doing without.

    python benchmarks/held_out.py --model DIRECTORY --rows FILE --pool FILE [--num 48] [--rounds 3] [--threads 2]

`--rows` has held-out rows with a task label; `--pool` has rows of the same tasks, whose distinct responses are the
options of tasks that have 2 to 12 of them. Contestants compute the log-likelihood of every option of every row, in
batches of as many tokens:
- `shared`: aliquot's way; a prompt is read once, and every option continues from its cache.
- `scored`: one whole row per option, logits only where a token of the option is scored, as `evaluate=validation_loss`.
- `full`: one whole row per option, all logits, as transformers gives them.
Contestants take turns, and the best round counts. The ratios asked for are full / scored >= 1.2 and full / shared >= 3.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not burn a core

import argparse
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from aliquot.evaluation.held_out.reader import BatchReader
from aliquot.evaluation.likelihood import ScoredPositions
from aliquot.models.spec import Model
from aliquot.scoring.batching import Batch, encode, plan_batches
from aliquot.scoring.module import PromptBatches

MOST_OPTIONS = 12
TOKENS_PER_BATCH = 4096


class Rows:
    """Prompts, and their options as tokens."""

    def __init__(self, model: Model, rows: Sequence[dict], options: dict[str, list[str]]) -> None:
        tokenizer = model.load_tokenizer()
        self.pad = tokenizer.pad_token_id
        flat = [(row["prompt"], text) for row in rows for text in options[row["task"]]]
        pairs = model.encoding(tokenizer).pairs([p for p, _ in flat], [text for _, text in flat])
        responses = iter(np.array(ids, dtype=np.int64) for _, ids in pairs)
        self.given = [[next(responses) for _ in options[row["task"]]] for row in rows]
        longest = max(len(ids) for texts in self.given for ids in texts)
        self.encoded = encode(model, tokenizer, [row["prompt"] for row in rows], model.max_tokens - longest)
        self.longest = longest


@torch.inference_mode()
def shared(network, rows: Rows) -> np.ndarray:
    found: list[np.ndarray] = [np.empty(0)] * len(rows.given)
    batches = plan_batches(rows.encoded.lengths, rows.longest, TOKENS_PER_BATCH)
    with ScoredPositions(network).installed() as positions:
        reader = BatchReader(network, rows.given, torch.tensor([0]), 0, TOKENS_PER_BATCH, positions)
        for batch in (PromptBatches(rows.encoded, batches, rows.pad, "left")[i] for i in range(len(batches))):
            answer = reader.read(Batch(*batch))
            counts = np.cumsum([len(rows.given[row]) for row in answer["rows"]])
            for row, part in zip(answer["rows"], np.split(answer["log_likelihoods"].numpy(), counts[:-1]), strict=True):
                found[row] = part
    return np.concatenate(found)


def whole(rows: Rows) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield batches of prompt and option: which they are, tokens, their mask, and where the option is."""
    starts = np.cumsum(rows.encoded.lengths) - rows.encoded.lengths
    texts, begins = [], []
    for start, length, options in zip(starts, rows.encoded.lengths, rows.given, strict=True):
        texts += [np.r_[rows.encoded.tokens[start : start + length], option] for option in options]
        begins += [length] * len(options)
    lengths = np.array([len(text) for text in texts])
    for batch in plan_batches(lengths, 0, TOKENS_PER_BATCH):
        width = int(lengths[batch].max())
        mask = np.arange(width) < lengths[batch][:, None]
        tokens = np.full(mask.shape, rows.pad, dtype=np.int64)
        tokens[mask] = np.concatenate([texts[i] for i in batch])
        scored = mask & (np.arange(width) >= np.array(begins)[batch][:, None])
        yield batch, *(torch.from_numpy(values) for values in (tokens, mask, scored))


@torch.inference_mode()
def scored(network, rows: Rows) -> np.ndarray:
    found = np.empty(sum(map(len, rows.given)))
    with ScoredPositions(network).installed() as positions:
        for batch, tokens, mask, at in whole(rows):

            def read(tokens=tokens, mask=mask):
                return network(input_ids=tokens[:, :-1], attention_mask=mask[:, :-1].long(), use_cache=False)

            found[batch] = positions.log_likelihoods(read, tokens[:, 1:], at[:, 1:]).numpy()
    return found


@torch.inference_mode()
def full(network, rows: Rows) -> np.ndarray:
    found = np.empty(sum(map(len, rows.given)))
    for batch, tokens, mask, at in whole(rows):
        logits = network(input_ids=tokens[:, :-1], attention_mask=mask[:, :-1].long(), use_cache=False).logits
        nats = logits.float().log_softmax(dim=2).gather(2, tokens[:, 1:, None])[:, :, 0].double()
        found[batch] = (nats * at[:, 1:]).sum(dim=1).numpy()
    return found


def read_lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line in file]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--num", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    known: dict[str, dict[str, None]] = defaultdict(dict)
    for row in read_lines(arguments.pool):
        known[row["task"]][row["response"]] = None
    options = {task: list(texts) for task, texts in known.items() if 2 <= len(texts) <= MOST_OPTIONS}
    lines = [row for row in read_lines(arguments.rows) if row["task"] in options][: arguments.num]
    model = Model(arguments.model, template="chat", max_tokens=512)
    rows, network = Rows(model, lines, options), model.load()
    num = sum(map(len, rows.given))
    print(f"{len(lines)} rows, {num} options, {rows.encoded.lengths.mean():.0f} tokens a prompt on average")
    best: dict[str, float] = {}
    results: dict[str, np.ndarray] = {}
    for _ in range(arguments.rounds):
        for contestant in (shared, scored, full):
            start = time.perf_counter()
            results[contestant.__name__] = contestant(network, rows)
            seconds = time.perf_counter() - start
            best[contestant.__name__] = min(seconds, best.get(contestant.__name__, seconds))
    for name, seconds in best.items():
        apart = np.abs(results[name] - results["full"]).max()
        print(
            f"{name:>7}: {seconds:7.2f} s, full / this = {best['full'] / seconds:5.2f}, at most {apart:.1e} nats apart"
        )


if __name__ == "__main__":
    main()
