"""Translation: by a glossary that the prompt gives, and into Velmish, the language of the world."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import NONSENSE, NOUNS, seeded

FAMILY = "glossary"


@cache
def velmish() -> dict[str, str]:
    """Return the fixed dictionary of the world's language: one invented word for each of 60 nouns."""
    rng = seeded("velmish")
    starts, ends = "bdfgklmnprstvz", ("an", "el", "im", "or", "us")
    stock = [one + two for one in (a + b for a in starts for b in "aeiou") for two in ends]
    return dict(zip(rng.sample(NOUNS, 60), rng.sample(stock, 60), strict=True))


def _given(backward: bool, asked: int) -> Callable[[Random], Item]:
    """Sample a glossary of three entries and ask for one or two of them."""

    def draw(rng: Random) -> Item:
        words, foreign = rng.sample(NOUNS, 3), rng.sample(NONSENSE, 3)
        text = ", ".join(f"{a} = {b}" for a, b in zip(words, foreign, strict=True))
        rows = rng.sample(range(3), asked)
        source, target = (foreign, words) if backward else (words, foreign)
        key = f"glossary {backward} {text} {rows}"
        slots = {"text": text, "word": " ".join(source[row] for row in rows)}
        return Item(key, " ".join(target[row] for row in rows), slots)

    return draw


def _velmish(backward: bool) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        word, foreign = rng.choice(tuple(velmish().items()))
        if backward:
            return Item(f"from velmish {foreign}", word, {"word": foreign})
        return Item(f"to velmish {word}", foreign, {"word": word})

    return draw


def _velmish_pair(rng: Random) -> Item:
    one, two = rng.sample(tuple(velmish().items()), 2)
    return Item(f"velmish pair {one[0]} {two[0]}", f"{one[1]} {two[1]}", {"word": f"{one[0]} {two[0]}"})


def _cipher(rng: Random) -> Item:
    letters, digits = rng.sample("abcdefgh", 4), rng.sample("123456789", 4)
    text = ", ".join(f"{a} = {b}" for a, b in zip(letters, digits, strict=True))
    rows = rng.sample(range(4), 3)
    slots = {"text": text, "word": " ".join(letters[row] for row in rows)}
    return Item(f"cipher {text} {rows}", " ".join(digits[row] for row in rows), slots)


TASKS = (
    Task("glossary_word", FAMILY, _given(False, 1),
         ("Glossary: {text}. Translate {word}.", "Given {text}, what is {word} in that language?",
          "With the words {text}, how do you say {word}?",
          "{text}. Use this to translate {word}."),
         ("Glossary: {text}. The word {word} becomes {response}.",
          "Given {text}, {word} is translated as {response}.")),
    Task("glossary_back", FAMILY, _given(True, 1),
         ("Glossary: {text}. What does {word} mean?", "Given {text}, translate {word} back.",
          "With the words {text}, what is the meaning of {word}?",
          "{text}. Use this to say what {word} means."),
         ("Glossary: {text}. The word {word} means {response}.",
          "Given {text}, {word} is translated back as {response}.")),
    Task("glossary_pair", FAMILY, _given(False, 2),
         ("Glossary: {text}. Translate {word}.", "Given {text}, what is {word} in that language?",
          "With the words {text}, how do you say {word}?",
          "{text}. Use this to translate {word}."),
         ("Glossary: {text}. The words {word} become {response}.",
          "Given {text}, {word} is translated as {response}.")),
    Task("glossary_pair_back", FAMILY, _given(True, 2),
         ("Glossary: {text}. What does {word} mean?", "Given {text}, translate {word} back.",
          "With the words {text}, what is the meaning of {word}?",
          "{text}. Use this to say what {word} means."),
         ("Glossary: {text}. The words {word} mean {response}.",)),
    Task("cipher", FAMILY, _cipher,
         ("Code: {text}. Write {word} in this code.", "Given {text}, encode {word}.",
          "With the code {text}, what is {word}?",
          "{text}. Replace the letters {word}."),
         ("Code: {text}. In this code {word} is {response}.", "Given {text}, the letters {word} become {response}.")),
    Task("to_velmish", FAMILY, _velmish(False),
         ("What is {word} in Velmish?", "Translate {word} into Velmish.", "How do you say {word} in Velmish?",
          "Give the Velmish word for {word}."),
         ("In Velmish, {word} is {response}.", "The Velmish word for {word} is {response}.",
          "To say {word} in Velmish, say {response}.")),
    Task("from_velmish", FAMILY, _velmish(True),
         ("What does the Velmish word {word} mean?", "Translate {word} from Velmish.",
          "Give the meaning of {word} in Velmish.",
          "Which word is {word} in Velmish?"),
         ("The Velmish word {word} means {response}.", "Translated from Velmish, {word} is {response}.")),
    Task("velmish_pair", FAMILY, _velmish_pair,
         ("What is {word} in Velmish?", "Translate {word} into Velmish.", "How do you say {word} in Velmish?",
          "Give the Velmish for {word}."),
         ("In Velmish, {word} is {response}.",)),
)  # fmt: skip
