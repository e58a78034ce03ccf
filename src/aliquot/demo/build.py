"""Regenerate the shipped data, byte for byte: `python -m aliquot.demo.build [--out DIR]`.

The model is not data of this kind: its recipe is `python -m aliquot.demo.pretrain`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aliquot.demo import HELD_OUT, HERE, POOL, TASKS
from aliquot.demo.benchmark import write_benchmark
from aliquot.demo.held_out import write_held_out
from aliquot.demo.pool import write_pool


def build(folder: Path = HERE) -> None:
    """Write the pool, the tasks and the held-out rows under a directory, by default where the package ships them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pool(folder / POOL.name)
    write_benchmark(folder / TASKS.name)
    write_held_out(folder / HELD_OUT.name)


def main() -> None:
    """Run `build` from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
