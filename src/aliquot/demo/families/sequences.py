"""Continuing a sequence of numbers, letters, days or a repeating pattern."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import COLOURS, DAYS, MONTHS, NOUNS, comma

FAMILY = "sequences"


def _steps(kind: str, high: int, sign: int) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        start, step = rng.randint(1, 40), rng.randint(1, high)
        row = [start + step * i for i in range(5)][::sign]
        return Item(f"{kind} {comma(row)}", str(row[4]), {"list": comma(row[:4])})

    return draw


def _double(rng: Random) -> Item:
    start = rng.randint(1, 12)
    row = [start * 2**i for i in range(4)]
    return Item(f"doubling {start}", str(row[3]), {"list": comma(row[:3])})


def _missing(rng: Random) -> Item:
    start, step, hole = rng.randint(1, 40), rng.randint(1, 9), rng.randint(1, 3)
    row = [str(start + step * i) for i in range(5)]
    answer, row[hole] = row[hole], "?"
    return Item(f"missing {comma(row)}", answer, {"list": comma(row)})


def _run(kind: str, names: str | tuple[str, ...]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        start, step, size = rng.randrange(len(names)), rng.choice((1, 2)), rng.choice((2, 3, 4))
        row = [names[(start + step * i) % len(names)] for i in range(size + 1)]
        return Item(f"{kind} {comma(row[:-1])}", row[-1], {"list": comma(row[:-1])})

    return draw


def _pattern(rng: Random) -> Item:
    words = rng.sample(rng.choice((NOUNS, COLOURS)), rng.choice((2, 3)))
    shown = rng.randint(len(words) + 1, 2 * len(words) + 1)
    row = [words[i % len(words)] for i in range(shown + 1)]
    return Item(f"pattern {comma(row[:-1])}", row[-1], {"list": comma(row[:-1])})


NEXT = ("What comes next: {list}?", "Go on with this row: {list}.", "Which is the next one after {list}?",
        "{list}. What follows?", "Continue {list} by one.")  # fmt: skip
NEXT_SAY = (
    "The row {list} goes on with {response}.",
    "After {list} comes {response}.",
    "{list} is followed by {response}.",
)
TASKS = (
    Task("sequence_step", FAMILY, _steps("steps", 9, 1), NEXT, NEXT_SAY),
    Task("sequence_down", FAMILY, _steps("steps down", 9, -1), NEXT, NEXT_SAY),
    Task("sequence_double", FAMILY, _double, NEXT, NEXT_SAY),
    Task("sequence_missing", FAMILY, _missing,
         ("Which number is missing: {list}?", "Fill the gap in {list}.",
          "What belongs in the place of the question mark: {list}?",
          "{list}. Find the missing number."),
         ("The missing number of {list} is {response}.", "In the gap of {list} belongs {response}.")),
    Task("sequence_letters", FAMILY, _run("letters", "abcdefghijklmnopqrstuvwxyz"), NEXT, NEXT_SAY),
    Task("sequence_days", FAMILY, _run("days", DAYS), NEXT, NEXT_SAY),
    Task("sequence_months", FAMILY, _run("months", MONTHS), NEXT, NEXT_SAY),
    Task("sequence_pattern", FAMILY, _pattern, NEXT, NEXT_SAY),
)  # fmt: skip
