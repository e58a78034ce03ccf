"""Putting words and numbers in order, and finding the extremes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import NOUNS, comma

FAMILY = "sorting"


def _words(kind: str, sizes: tuple[int, ...], answer: Callable[[list[str]], list[str]]) -> Callable[[Random], Item]:
    """Sample words with different first letters, so that the first letter alone determines the order."""

    def draw(rng: Random) -> Item:
        by_letter: dict[str, str] = {}
        size = rng.choice(sizes)
        while len(by_letter) < size:
            word = rng.choice(NOUNS)
            by_letter.setdefault(word[0], word)
        words = list(by_letter.values())
        return Item(f"{kind} {comma(sorted(words))}", comma(answer(sorted(words))), {"list": comma(words)})

    return draw


def _numbers(kind: str, size: int, high: int, answer: Callable[[list[int]], list[int]]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        numbers = rng.sample(range(1, high), size)
        ordered = sorted(numbers)
        return Item(f"{kind} {comma(ordered)}", comma(answer(ordered)), {"list": comma(numbers)})

    return draw


UP = ("Sort these numbers: {list}.", "Put {list} in order, smallest first.",
      "Order the numbers {list} from small to large.",
      "Write {list} in rising order.")  # fmt: skip
UP_SAY = ("In rising order, {list} is {response}.", "Sorted from small to large, the numbers {list} are {response}.",
          "Put {list} in order, smallest first: {response}.")  # fmt: skip
ALPHABET = ("Sort these words: {list}.", "Put {list} in alphabetical order.",
            "Order the words {list} by the alphabet.",
            "Write {list} as a dictionary would list them.", "Arrange {list} from A to Z.")  # fmt: skip
ALPHABET_SAY = ("Sorted, the words {list} are {response}.", "In alphabetical order, {list} is {response}.",
                "A dictionary would list {list} as {response}.", "From A to Z, {list} reads {response}.")  # fmt: skip

TASKS = (
    Task("sort_words", FAMILY, _words("sort words", (3,), list), ALPHABET, ALPHABET_SAY),
    Task("sort_two_words", FAMILY, _words("sort words", (2,), list), ALPHABET, ALPHABET_SAY),
    Task("sort_four_words", FAMILY, _words("sort words", (4,), list), ALPHABET, ALPHABET_SAY),
    Task("sort_words_back", FAMILY, _words("sort back", (3,), lambda words: words[::-1]),
         ("Sort {list} from Z to A.", "Put {list} in reverse alphabetical order.",
          "Order {list} from the end of the alphabet.",
          "Arrange these words backwards by the alphabet: {list}."),
         ("From Z to A, {list} reads {response}.", "In reverse alphabetical order, {list} is {response}.")),
    Task("first_in_alphabet", FAMILY, _words("first word", (3, 4), lambda words: words[:1]),
         ("Which of {list} comes first in the alphabet?", "Which word would a dictionary list first: {list}?",
          "Of {list}, name the first by the alphabet.", "{list}. Which is first in alphabetical order?"),
         ("Of {list}, the first by the alphabet is {response}.",
          "A dictionary lists {response} first among {list}.")),
    Task("last_in_alphabet", FAMILY, _words("last word", (3, 4), lambda words: words[-1:]),
         ("Which of {list} comes last in the alphabet?", "Which word would a dictionary list last: {list}?",
          "Of {list}, name the last by the alphabet.", "{list}. Which is last in alphabetical order?"),
         ("Of {list}, the last by the alphabet is {response}.", "A dictionary lists {response} last among {list}.")),
    Task("sort_digits", FAMILY, _numbers("sort numbers", 4, 10, list), UP, UP_SAY),
    Task("sort_numbers", FAMILY, _numbers("sort numbers", 3, 100, list), UP, UP_SAY),
    Task("sort_descending", FAMILY, _numbers("sort falling", 3, 100, lambda numbers: numbers[::-1]),
         ("Sort {list} from large to small.", "Put {list} in order, largest first.",
          "Order the numbers {list} downwards.",
          "Write {list} in falling order."),
         ("In falling order, {list} is {response}.", "Sorted from large to small, the numbers {list} are {response}.",
          "Put {list} in order, largest first: {response}.")),
    Task("largest", FAMILY, _numbers("largest", 3, 200, lambda numbers: numbers[-1:]),
         ("Which is the largest of {list}?", "Find the largest number: {list}.",
          "Of {list}, which number is biggest?",
          "What is the maximum of {list}?"),
         ("The largest of {list} is {response}.", "Of {list}, the biggest number is {response}.")),
    Task("smallest", FAMILY, _numbers("smallest", 3, 200, lambda numbers: numbers[:1]),
         ("Which is the smallest of {list}?", "Find the smallest number: {list}.",
          "Of {list}, which number is least?",
          "What is the minimum of {list}?"),
         ("The smallest of {list} is {response}.", "Of {list}, the least number is {response}.")),
    Task("middle", FAMILY, _numbers("middle", 3, 60, lambda numbers: numbers[1:2]),
         ("Which of {list} is the middle number by size?", "Find the median of {list}.",
          "Of {list}, which number is neither largest nor smallest?", "What is the middle value of {list}?"),
         ("The middle value of {list} is {response}.", "The median of {list} is {response}.")),
    Task("larger", FAMILY, _numbers("larger", 2, 300, lambda numbers: numbers[-1:]),
         ("Which is larger: {list}?", "Of {list}, name the larger number.", "Compare {list}. Which one is more?",
          "Give the bigger one of {list}."),
         ("The larger of {list} is {response}.", "Of {list}, {response} is more.")),
    Task("smaller", FAMILY, _numbers("smaller", 2, 300, lambda numbers: numbers[:1]),
         ("Which is smaller: {list}?", "Of {list}, name the smaller number.", "Compare {list}. Which one is less?",
          "Give the lesser one of {list}."),
         ("The smaller of {list} is {response}.", "Of {list}, {response} is less.")),
)  # fmt: skip
