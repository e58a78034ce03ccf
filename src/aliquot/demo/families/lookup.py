"""Reading a value, a row or an extreme from a small table that the prompt states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import COLOURS, HOLDERS, NOUNS, PEOPLE, comma

FAMILY = "lookup"
PRICES = tuple(str(n) for n in range(2, 60))


def _table(rng: Random, keys: Sequence[str], values: Sequence[str]) -> tuple[list[str], list[str], str]:
    size = rng.choice((3, 4))
    left, right = rng.sample(keys, size), rng.sample(values, size)
    return left, right, comma([f"{a} {b}" for a, b in zip(left, right, strict=True)])


def _value(kind: str, keys: Sequence[str], values: Sequence[str]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        left, right, text = _table(rng, keys, values)
        row = rng.randrange(len(left))
        return Item(f"{kind} value {left[row]} {text}", right[row], {"table": text, "key": left[row]})

    return draw


def _owner(kind: str, keys: Sequence[str], values: Sequence[str]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        left, right, text = _table(rng, keys, values)
        row = rng.randrange(len(left))
        return Item(f"{kind} owner {right[row]} {text}", left[row], {"table": text, "value": right[row]})

    return draw


def _extreme(kind: str, keys: Sequence[str], sign: int) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        left, right, text = _table(rng, keys, PRICES)
        best = max(range(len(left)), key=lambda row: sign * int(right[row]))
        return Item(f"{kind} extreme {sign} {text}", left[best], {"table": text})

    return draw


def _known(rng: Random) -> Item:
    left, _, text = _table(rng, PEOPLE, PRICES)
    inside = rng.random() < 0.5
    who = rng.choice(left) if inside else rng.choice([name for name in PEOPLE if name not in left])
    return Item(f"known {who} {text}", "yes" if inside else "no", {"table": text, "key": who})


def _together(rng: Random) -> Item:
    left, right = rng.sample(NOUNS, 3), [str(rng.randint(1, 12)) for _ in range(3)]
    text = comma([f"{a} {b}" for a, b in zip(left, right, strict=True)])
    one, two = rng.sample(range(3), 2)
    slots = {"table": text, "one": left[one], "two": left[two]}
    return Item(f"together {min(one, two)} {max(one, two)} {text}", str(int(right[one]) + int(right[two])), slots)


TASKS = (
    Task("lookup_price", FAMILY, _value("price", NOUNS, PRICES),
         ("Prices: {table}. What does the {key} cost?", "Here are prices: {table}. Give the price of the {key}.",
          "{table}. How much is the {key}?", "The shop asks: {table}. How much must you pay for the {key}?"),
         ("Prices: {table}. The {key} costs {response}.", "{table}. The price of the {key} is {response}.",
          "The shop asks: {table}. For the {key} you must pay {response}.")),
    Task("lookup_age", FAMILY, _value("age", PEOPLE, PRICES),
         ("Ages: {table}. How old is {key}?", "Here are some ages: {table}. Give the age of {key}.",
          "{table}. What is the age of {key}?", "The list of ages reads: {table}. How old must {key} be?"),
         ("Ages: {table}. {key} is {response}.", "{table}. The age of {key} is {response}.")),
    Task("lookup_colour", FAMILY, _value("hat", PEOPLE, COLOURS),
         ("Hats: {table}. What colour is the hat of {key}?", "Their hats are: {table}. Which colour does {key} wear?",
          "{table}. Name the hat colour of {key}.", "Hat colours: {table}. Which one has {key}?"),
         ("Hats: {table}. The hat of {key} is {response}.", "Their hats are: {table}. {key} wears {response}.")),
    Task("lookup_place", FAMILY, _value("place", NOUNS, HOLDERS),
         ("Places: {table}. Where is the {key}?", "Things are kept so: {table}. Where do you find the {key}?",
          "{table}. Name the place of the {key}.", "The list of places says: {table}. Where should the {key} be?"),
         ("Places: {table}. The {key} is in the {response}.",
          "Things are kept so: {table}. Find the {key} in the {response}.")),
    Task("lookup_buyer", FAMILY, _owner("buyer", PEOPLE, NOUNS),
         ("Buyers: {table}. Who bought the {value}?", "They bought: {table}. Who has the {value}?",
          "{table}. Name the buyer of the {value}.", "The list of buyers says: {table}. Who took the {value}?"),
         ("Buyers: {table}. The {value} was bought by {response}.",
          "They bought: {table}. The {value} went to {response}.")),
    Task("lookup_owner", FAMILY, _owner("points", PEOPLE, PRICES),
         ("Points: {table}. Who has {value} points?", "The scores are {table}. Who scored {value}?",
          "{table}. Whose score is {value}?", "Scores: {table}. Name the player with {value}."),
         ("Points: {table}. The one with {value} is {response}.",
          "The scores are {table}. {value} was scored by {response}.")),
    Task("lookup_highest", FAMILY, _extreme("points", PEOPLE, 1),
         ("Points: {table}. Who has the most?", "The scores are {table}. Who wins?",
          "{table}. Whose score is highest?",
          "Scores: {table}. Name the best player."),
         ("Points: {table}. The most has {response}.", "The scores are {table}. The winner is {response}.")),
    Task("lookup_cheapest", FAMILY, _extreme("price", NOUNS, -1),
         ("Prices: {table}. What is cheapest?", "The shop asks: {table}. Which thing costs least?",
          "{table}. Name the cheapest thing.", "Here are prices: {table}. What should you buy to pay least?"),
         ("Prices: {table}. The cheapest is {response}.", "The shop asks: {table}. What costs least is {response}.")),
    Task("lookup_known", FAMILY, _known,
         ("Ages: {table}. Does the list name {key}?", "Here are some ages: {table}. Do we know the age of {key}?",
          "{table}. Is {key} among them?", "Say yes or no: {key} is in the list {table}."),
         ("Ages: {table}. Does the list name {key}? The guide says {response}.",)),
    Task("lookup_together", FAMILY, _together,
         ("Prices: {table}. What do {one} and {two} cost together?",
          "The shop asks: {table}. How much for {one} and {two}?",
          "{table}. Add the prices of {one} and {two}.",
          "Here are prices: {table}. You buy {one} and {two}. What do you pay?"),
         ("Prices: {table}. Together {one} and {two} cost {response}.",)),
)  # fmt: skip
