"""Preparing and loading a pool of a million prompts: seconds and peak memory.

    python benchmarks/pools.py                          # jsonl, 1,000,000 prompts of about 60 words
    python benchmarks/pools.py --rows 100k --near --format parquet

Each measurement is a process of its own, so that none inherits another's memory; `start` is one that only imports.
The prompts are made of words drawn by Zipf's law, and one in a hundred repeats an earlier one, one in a hundred all but
a word of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aliquot.config.schema import parse_budget
from aliquot.pools.cleaning import Cleaning
from aliquot.pools.prepare import load_prepared, prepare
from aliquot.pools.spec import JsonlPool, ParquetPool, PoolSpec
from aliquot.store.provenance import peak_memory_gb, reset_peak_memory

_ROWS_AT_ONCE = 10_000
_VOCABULARY = 50_000


def write_source(path: Path, num_rows: int) -> None:
    """Write jsonl rows with ids, tasks and responses."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, _VOCABULARY + 1)
    words = np.array([f"{''.join(rng.choice(list('aeioustrnl'), 6))}{i % 100}" for i in range(_VOCABULARY)])
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, num_rows, _ROWS_AT_ONCE):
            size = min(_ROWS_AT_ONCE, num_rows - start)
            lengths = rng.integers(30, 91, size)
            drawn = words[rng.choice(_VOCABULARY, int(lengths.sum()), p=weights / weights.sum())]
            texts = [" ".join(text) for text in np.split(drawn, np.cumsum(lengths)[:-1])]
            for i in range(100, size, 100):
                texts[i] = texts[i - 50]
                texts[i - 1] = f"{texts[i - 51]} indeed"
            for i, text in enumerate(texts):
                row = {"id": f"r{start + i}", "prompt": text, "task": f"t{i % 200}", "response": text[:100]}
                file.write(json.dumps(row) + "\n")


def write_parquet(source: Path, target: Path) -> None:
    """Turn the jsonl file into parquet."""
    import pyarrow.json
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.json.read_json(source), target, row_group_size=100_000)


def iterate(directory: Path) -> None:
    """Load a prepared pool and read every prompt of it once, as the scoring pass does."""
    pool = load_prepared(directory, "pool")
    assert sum(len(pool.prompts[start : start + 8192]) for start in range(0, len(pool), 8192)) == len(pool)


def measure(name: str, work: Callable[..., object], *arguments: object) -> None:
    """Run `work` in a fresh process and print what it took."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_report, args=(name, work, *arguments))
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode


def _report(name: str, work: Callable[..., object], *arguments: object) -> None:
    reset_peak_memory()
    started = time.perf_counter()
    work(*arguments)
    print(f"{name:<28} {time.perf_counter() - started:9.3f} s   peak {peak_memory_gb():.2f} GB", flush=True)


def main() -> None:
    """Generate, prepare, load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000k", help="such as 100k")
    parser.add_argument("--near", action="store_true", help="look for near duplicates too")
    parser.add_argument("--format", choices=["jsonl", "parquet"], default="jsonl")
    options = parser.parse_args()
    num_rows = parse_budget(options.rows, 10**9, "benchmark")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.jsonl"
        write_source(source, num_rows)
        print(f"{num_rows:,} rows, {source.stat().st_size / 1e9:.2f} GB of jsonl")
        spec: PoolSpec = JsonlPool(str(source), clean=Cleaning(near=0.8 if options.near else None))
        if options.format == "parquet":
            write_parquet(source, source.with_suffix(".parquet"))
            spec = ParquetPool(str(source.with_suffix(".parquet")), clean=spec.clean)
        directory = Path(folder) / "prepared"
        directory.mkdir()
        measure("start", int)
        measure(f"prepare {options.format}", prepare, spec, directory)
        dropped = json.loads((directory / "report.json").read_text())["dropped"]
        print(f"dropped {dropped}; pool.arrow has {(directory / 'pool.arrow').stat().st_size / 1e9:.2f} GB")
        measure("load", load_prepared, directory, "pool")
        measure("load and read all prompts", iterate, directory)


if __name__ == "__main__":
    main()
