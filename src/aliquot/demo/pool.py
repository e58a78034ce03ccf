"""The pool: 99,000 instruction prompts with heavy-tailed task sizes and a few percent of near-duplicates."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from aliquot.demo.families import TASKS
from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import held_out, seeded

SIZE = 99_000
SMALLEST = 24
TAIL = 1.35  # exponent of the task sizes: rank r gets a share of 1 / (r + 6) ** TAIL
NEAR_DUPLICATES = 0.03
OPENINGS = (
    "Please help: ",
    "Quick question. ",
    "Hello! ",
    "For a quiz: ",
    "I wonder. ",
    "One more: ",
    "My teacher asks: ",
)
CLOSINGS = (" Thanks.", " Be brief.", " Keep it short.", " Just the answer, please.", " Thank you!", " No explanation.")


@dataclass(frozen=True)
class DemoRow:
    """One row of the pool file, with the content key, which is not written."""

    id: str
    prompt: str
    response: str
    task: str
    family: str
    key: str

    def line(self) -> str:
        """Return the row as one line of json."""
        shown = {"id": self.id, "prompt": self.prompt, "response": self.response, "task": self.task,
                 "family": self.family}  # fmt: skip
        return json.dumps(shown, ensure_ascii=True)


def _capacity(task: Task) -> int:
    """Estimate how many prompts a task can provide before it repeats itself: contents, and a few wordings of each."""
    rng = seeded("capacity", task.name)
    contents = len({task.draw(rng).key for _ in range(1500)})
    return SIZE if contents > 1000 else 3 * contents * len(task.prompts)


@cache
def sizes() -> dict[str, int]:
    """Divide the pool among tasks: a seeded ranking of tasks, a power law over ranks, a floor, a capacity per task."""
    names = [task.name for task in TASKS]
    seeded("sizes").shuffle(names)
    caps = {task.name: max(SMALLEST, _capacity(task)) for task in TASKS}
    low, high = 0.0, 100.0 * SIZE

    def plan(scale: float) -> dict[str, int]:
        return {
            name: min(caps[name], max(SMALLEST, int(scale / (rank + 6) ** TAIL))) for rank, name in enumerate(names)
        }

    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(plan(middle).values()) <= SIZE else (low, middle)
    shares = plan(low)
    largest = max(names, key=lambda name: shares[name])
    shares[largest] += SIZE - sum(shares.values())
    return {task.name: shares[task.name] for task in TASKS}


def wrap(prompt: str, rng: Random) -> str:
    """Add the courtesies of real requests to about a quarter of the prompts."""
    draw = rng.random()
    if draw < 0.12:
        return rng.choice(OPENINGS) + prompt
    return prompt + rng.choice(CLOSINGS) if draw < 0.24 else prompt


def blur(prompt: str, rng: Random) -> str:
    """Make a near-duplicate: the same request with a small change of case, punctuation or courtesy."""
    change = rng.randrange(4)
    if change == 0:
        return prompt[0].lower() + prompt[1:]
    if change == 1:
        return prompt.rstrip("?.!")
    if change == 2:
        return prompt[:-1] + ", please" + prompt[-1:] if prompt[-1:] in "?." else prompt + " please"
    return "So: " + prompt


def fresh(task: Task, rng: Random) -> Item:
    """Draw an instance that does not belong to the benchmark."""
    while True:
        item = task.draw(rng)
        if not held_out(item.key):
            return item


def rows_of(task: Task, size: int, seen: set[str]) -> Iterator[DemoRow]:
    """Yield the rows of one task; prompts are unique over the whole pool through `seen`."""
    rng = seeded("pool", task.name)
    made: list[DemoRow] = []
    misses = 0
    while len(made) < size:
        if made and rng.random() < NEAR_DUPLICATES:
            model = rng.choice(made)
            prompt, response, key = blur(model.prompt, rng), model.response, model.key
        else:
            item = fresh(task, rng)
            prompt = wrap(task.ask(item, rng.randrange(len(task.prompts))), rng)
            response, key = item.response, item.key
        if prompt in seen:
            misses += 1
            assert misses < 200 * size, f"task {task.name} cannot give {size} different prompts"
            continue
        seen.add(prompt)
        row = DemoRow(f"{task.name}-{len(made):05d}", prompt, response, task.name, task.family, key)
        made.append(row)
        yield row


@cache
def pool_rows() -> tuple[DemoRow, ...]:
    """Return the whole pool in its final, shuffled order."""
    seen: set[str] = set()
    rows = [row for task in TASKS for row in rows_of(task, sizes()[task.name], seen)]
    seeded("pool order").shuffle(rows)
    return tuple(rows)


def write_pool(path: Path) -> None:
    """Write the pool as gzipped jsonl whose bytes depend only on the code (no time stamp, no file name)."""
    text = "".join(row.line() + "\n" for row in pool_rows())
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0, compresslevel=9) as file:
        file.write(text.encode())
    path.write_bytes(buffer.getvalue())
