"""Counting words, letters and things."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import NOUNS, comma

FAMILY = "counting"


def _length(rng: Random) -> Item:
    words = rng.sample(NOUNS, rng.randint(2, 7))
    return Item(f"count {comma(words)}", str(len(words)), {"list": comma(words)})


def _times(rng: Random) -> Item:
    word, *others = rng.sample(NOUNS, 3)
    times = rng.randint(1, 4)
    words = [word] * times + [rng.choice(others) for _ in range(rng.randint(1, 3))]
    rng.shuffle(words)
    return Item(f"times {word} {comma(words)}", str(times), {"list": comma(words), "word": word})


def _different(rng: Random) -> Item:
    stock = rng.sample(NOUNS, rng.randint(1, 4))
    words = stock + [rng.choice(stock) for _ in range(rng.randint(1, 2))]
    rng.shuffle(words)
    return Item(f"different {comma(words)}", str(len(stock)), {"list": comma(words)})


def _letters(rng: Random) -> Item:
    word = rng.choice(NOUNS)
    return Item(f"letters {word}", str(len(word)), {"word": word})


def _marks(marks: str, high: int) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        mark, other = rng.sample(marks, 2)
        times = rng.randint(1, high)
        row = [mark] * times + [other] * rng.randint(1, high)
        rng.shuffle(row)
        return Item(f"marks {mark} {' '.join(row)}", str(times), {"list": " ".join(row), "word": mark})

    return draw


def _things(rng: Random) -> Item:
    what = rng.sample(NOUNS, 3)
    counts = [rng.randint(1, 6) for _ in what]
    text = comma([f"{n} x {word}" for n, word in zip(counts, what, strict=True)])
    return Item(f"total {text}", str(sum(counts)), {"list": text})


TASKS = (
    Task("count_list", FAMILY, _length,
         ("How many words are in this list: {list}?", "Count the words: {list}.",
          "Give the number of words in {list}.",
          "{list}. How many words is that?"),
         ("There are {response} words in the list {list}.", "Counting the words {list} gives {response}.",
          "The number of words in {list} is {response}.")),
    Task("count_word", FAMILY, _times,
         ("How often does {word} appear in {list}?", "Count the word {word} in {list}.",
          "How many times is {word} in this list: {list}?", "{list}. How often do you see {word}?"),
         ("In {list} the word {word} appears {response} times.", "How often {word} appears in {list}: {response}.")),
    Task("count_different", FAMILY, _different,
         ("How many different words are in {list}?", "Count the distinct words of {list}.",
          "Ignoring repeats, how many words are in {list}?", "{list}. How many of these words are different?"),
         ("There are {response} different words in {list}.", "Ignoring repeats, {list} has {response} words.")),
    Task("count_letters", FAMILY, _letters,
         ("How many letters has the word {word}?", "Count the letters of {word}.", "How long is the word {word}?",
          "Give the number of letters in {word}.", "Of how many letters is {word} made?"),
         ("The word {word} has {response} letters.", "Counting the letters of {word} gives {response}.")),
    Task("count_marks", FAMILY, _marks("xo", 5),
         ("How many times is {word} in {list}?", "Count every {word} in {list}.",
          "In the row {list}, how many are {word}?",
          "{list}: how often do you see {word}?"),
         ("In the row {list} there are {response} times {word}.", "{list}: {word} appears {response} times.")),
    Task("count_bits", FAMILY, _marks("01", 4),
         ("How many digits of {list} are {word}?", "Count the digit {word} in {list}.",
          "How often is {word} in the row {list}?",
          "{list}. How many of them are {word}?"),
         ("The digit {word} appears {response} times in {list}.",)),
    Task("count_total", FAMILY, _things,
         ("How many things are there in all: {list}?", "Add up the things: {list}.", "What is the total of {list}?",
          "We have {list}. How many is that together?"),
         ("Adding up {list} gives {response} things.", "The total of {list} is {response}.")),
)  # fmt: skip
