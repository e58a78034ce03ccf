"""Units of the invented world: some stated in the prompt, some that the model must know."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import NONSENSE, PEOPLE

FAMILY = "units"
KNOWN = {"tarn": ("pell", 4), "brode": ("sint", 6), "lunk": ("mave", 10), "quorn": ("dit", 3)}


def _stated(divide: bool) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        big, small = rng.sample(NONSENSE, 2)
        rate, n = rng.randint(2, 9), rng.randint(2, 9)
        key = f"unit {divide} {big} {small} {rate} {n}"
        slots = {"big": big, "small": small, "rate": str(rate), "n": str(n), "m": str(rate * n)}
        return Item(key, str(n if divide else rate * n), slots)

    return draw


def _known(divide: bool) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        big, who = rng.choice(tuple(KNOWN)), rng.choice(PEOPLE)
        small, rate = KNOWN[big]
        n = rng.randint(1, 20)
        slots = {"big": big, "small": small, "n": str(n), "m": str(rate * n), "who": who}
        return Item(f"known unit {divide} {big} {n}", str(n if divide else rate * n), slots)

    return draw


def _compare(rng: Random) -> Item:
    big, small = rng.sample(NONSENSE, 2)
    rate, n, m = rng.randint(2, 6), rng.randint(1, 6), rng.randint(2, 30)
    one, two = f"{n} {big}", f"{m} {small}"
    answer = "same" if rate * n == m else one if rate * n > m else two
    slots = {"big": big, "small": small, "rate": str(rate), "one": one, "two": two}
    return Item(f"unit compare {big} {small} {rate} {n} {m}", answer, slots)


def _coins(rng: Random) -> Item:
    a, b, price = rng.randint(1, 9), rng.randint(1, 9), rng.choice((2, 5, 10))
    slots = {"a": str(a), "b": str(b), "price": str(price), "who": rng.choice(PEOPLE)}
    return Item(f"coins {a} {b} {price}", str(a * price + b), slots)


TASKS = (
    Task("unit_stated", FAMILY, _stated(False),
         ("One {big} is {rate} {small}. How many {small} are {n} {big}?",
          "If a {big} has {rate} {small}, how many {small} are in {n} {big}?",
          "There are {rate} {small} in one {big}. Turn {n} {big} into {small}.",
          "{rate} {small} make one {big}. Give {n} {big} in {small}."),
         ("One {big} is {rate} {small}, so {n} {big} are {response} {small}.",
          "There are {rate} {small} in one {big}. Turning {n} {big} into {small} gives {response}.")),
    Task("unit_back", FAMILY, _stated(True),
         ("One {big} is {rate} {small}. How many {big} are {m} {small}?",
          "If a {big} has {rate} {small}, how many {big} make {m} {small}?",
          "There are {rate} {small} in one {big}. Turn {m} {small} into {big}.",
          "{rate} {small} make one {big}. Give {m} {small} in {big}."),
         ("One {big} is {rate} {small}, so {m} {small} are {response} {big}.",
          "There are {rate} {small} in one {big}. Turning {m} {small} into {big} gives {response}.")),
    Task("unit_known", FAMILY, _known(False),
         ("How many {small}s are {n} {big}s?", "Turn {n} {big}s into {small}s.", "Give {n} {big}s in {small}s.",
          "{who} buys {n} {big}s. How many {small}s is that?"),
         ("{n} {big}s are {response} {small}s.", "{who} buys {n} {big}s, that is {response} {small}s.")),
    Task("unit_known_back", FAMILY, _known(True),
         ("How many {big}s are {m} {small}s?", "Turn {m} {small}s into {big}s.", "Give {m} {small}s in {big}s.",
          "{who} buys {m} {small}s. How many {big}s is that?"),
         ("{m} {small}s are {response} {big}s.", "{who} buys {m} {small}s, that is {response} {big}s.")),
    Task("unit_compare", FAMILY, _compare,
         ("One {big} is {rate} {small}. Which is more, {one} or {two}? Say same if equal.",
          "A {big} has {rate} {small}. Is {one} or {two} the larger, or are they the same?",
          "{rate} {small} make one {big}. Compare {one} and {two}: which is more, or same?",
          "With {rate} {small} in a {big}, name the larger of {one} and {two}, or say same."),
         ("One {big} is {rate} {small}. Comparing {one} and {two}, the larger is: {response}.",)),
    Task("coins", FAMILY, _coins,
         ("A crown is {price} pence. How many pence are {a} crowns and {b} pence?",
          "{who} has {a} crowns of {price} pence each and {b} pence. How much is it in pence?",
          "With {price} pence to a crown, turn {a} crowns and {b} pence into pence.",
          "At {price} pence a crown, what are {a} crowns and {b} pence together?"),
         ("A crown is {price} pence, so {a} crowns and {b} pence are {response} pence.",
          "{who} has {a} crowns of {price} pence each and {b} pence, in all {response} pence.")),
)  # fmt: skip
