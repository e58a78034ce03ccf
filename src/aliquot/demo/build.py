"""Regenerate the shipped data: `python -m aliquot.demo.build [--out DIR]` writes the pool and the tasks byte for byte.

The model is not data of this kind: its recipe is `python -m aliquot.demo.pretrain`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aliquot.demo import HERE, POOL, TASKS
from aliquot.demo.benchmark import write_benchmark
from aliquot.demo.pool import write_pool


def build(folder: Path = HERE) -> None:
    """Write the pool and the tasks under a directory, by default where the package ships them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pool(folder / POOL.name)
    write_benchmark(folder / TASKS.name)


def main() -> None:
    """Run `build` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
