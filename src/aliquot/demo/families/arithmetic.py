"""Sums, differences, products and stories about them, in small numbers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import NOUNS, PEOPLE

FAMILY = "arithmetic"


def _pair(kind: str, low: int, high: int, answer: Callable[[int, int], int]) -> Callable[[Random], Item]:
    """Sample two numbers for a commutative operation: 3 and 14 is the same content as 14 and 3."""

    def draw(rng: Random) -> Item:
        a, b = rng.randint(low, high), rng.randint(low, high)
        return Item(f"{kind} {min(a, b)} {max(a, b)}", str(answer(a, b)), {"a": str(a), "b": str(b)})

    return draw


def _difference(low: int, high: int) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        b, a = sorted((rng.randint(low, high), rng.randint(low, high)))
        return Item(f"subtract {a} {b}", str(a - b), {"a": str(a), "b": str(b)})

    return draw


def _quotient(rng: Random) -> Item:
    b, c = rng.randint(2, 9), rng.randint(1, 12)
    return Item(f"divide {b * c} {b}", str(c), {"a": str(b * c), "b": str(b)})


def _remainder(rng: Random) -> Item:
    a, b = rng.randint(5, 60), rng.randint(2, 9)
    return Item(f"remainder {a} {b}", str(a % b), {"a": str(a), "b": str(b)})


def _three(rng: Random) -> Item:
    numbers = [rng.randint(1, 12) for _ in range(3)]
    a, b, c = map(str, numbers)
    key = "add3 " + " ".join(map(str, sorted(numbers)))
    return Item(key, str(sum(numbers)), {"a": a, "b": b, "c": c})


def _single(kind: str, low: int, high: int, answer: Callable[[int], str]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        a = rng.randint(low, high)
        return Item(f"{kind} {a}", answer(a), {"a": str(a)})

    return draw


def _half(rng: Random) -> Item:
    a = rng.randint(1, 99)
    return Item(f"half {2 * a}", str(a), {"d": str(2 * a)})


def _story(gain: bool) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        who, other = rng.sample(PEOPLE, 2)
        what = rng.choice([noun for noun in NOUNS if not noun.endswith(("s", "ch", "sh", "x", "y", "f"))]) + "s"
        b, a = sorted((rng.randint(2, 15), rng.randint(2, 15)))
        answer = a + b if gain else a - b
        key = f"story {'gain' if gain else 'loss'} {who} {what} {a} {b}"
        return Item(key, str(answer), {"who": who, "other": other, "what": what, "a": str(a), "b": str(b)})

    return draw


ADD = ("What is {a} plus {b}?", "Add {a} and {b}.", "Work out {a} + {b}.", "Find the sum of {a} and {b}.",
       "How much is {a} and {b} together?", "{a} + {b} = ?")  # fmt: skip
ADD_SAY = ("{a} plus {b} is {response}.", "Adding {a} and {b} gives {response}.", "{a} + {b} = {response}",
           "If you work out the sum of {a} and {b}, you find {response}.")  # fmt: skip
TAKE = ("What is {a} minus {b}?", "Subtract {b} from {a}.", "Work out {a} - {b}.", "Take {b} away from {a}.",
        "Find the difference of {a} and {b}.", "{a} - {b} = ?")  # fmt: skip
TAKE_SAY = ("{a} minus {b} is {response}.", "Taking {b} away from {a} leaves {response}.", "{a} - {b} = {response}",
            "If you subtract {b} from {a}, the difference is {response}.")  # fmt: skip
TIMES = ("What is {a} times {b}?", "Multiply {a} by {b}.", "Work out {a} x {b}.", "Find the product of {a} and {b}.")
TIMES_SAY = ("{a} times {b} is {response}.", "{a} x {b} = {response}",
             "If you multiply {a} by {b}, you find {response}.",
             "The product of {a} and {b} is {response}.")  # fmt: skip

TASKS = (
    Task("add_small", FAMILY, _pair("add", 1, 12, lambda a, b: a + b), ADD, ADD_SAY),
    Task("add_two_digit", FAMILY, _pair("add", 10, 49, lambda a, b: a + b), ADD, ADD_SAY),
    Task("subtract_small", FAMILY, _difference(1, 18), TAKE, TAKE_SAY),
    Task("subtract_two_digit", FAMILY, _difference(10, 60), TAKE, TAKE_SAY),
    Task("multiply", FAMILY, _pair("multiply", 2, 12, lambda a, b: a * b), TIMES, TIMES_SAY),
    Task("divide", FAMILY, _quotient,
         ("What is {a} divided by {b}?", "Divide {a} by {b}.", "How often does {b} go into {a}?",
          "Work out {a} / {b}."),
         ("{a} divided by {b} is {response}.", "{b} goes into {a} {response} times.", "{a} / {b} = {response}")),
    Task("remainder", FAMILY, _remainder,
         ("What is left when {a} is divided by {b}?", "Find the remainder of {a} divided by {b}.",
          "Divide {a} by {b} and give the remainder.", "How much remains if {a} is shared by {b}?"),
         ("When {a} is divided by {b}, {response} is left.", "The remainder of {a} divided by {b} is {response}.")),
    Task("add_three", FAMILY, _three,
         ("What is {a} plus {b} plus {c}?", "Add {a}, {b} and {c}.", "Work out {a} + {b} + {c}.",
          "Find the sum of {a}, {b} and {c}."),
         ("{a} plus {b} plus {c} is {response}.", "The sum of {a}, {b} and {c} is {response}.",
          "{a} + {b} + {c} = {response}")),
    Task("double", FAMILY, _single("double", 1, 99, lambda a: str(2 * a)),
         ("What is twice {a}?", "Double the number {a}.", "Give the double of {a}.", "How much is two times {a}?"),
         ("Twice {a} is {response}.", "The double of {a} is {response}.", "Two times {a} makes {response}.")),
    Task("half", FAMILY, _half,
         ("What is half of {d}?", "Halve the number {d}.", "Give one half of {d}.", "How much is {d} halved?"),
         ("Half of {d} is {response}.", "{d} halved is {response}.")),
    Task("parity", FAMILY, _single("parity", 1, 999, lambda a: "odd" if a % 2 else "even"),
         ("Is {a} even or odd?", "Say whether {a} is even or odd.", "Even or odd: {a}?",
          "Is the number {a} an even or an odd one?"),
         ("The number {a} is {response}.", "Whether even or odd: {a} is {response}.",
          "{a} is an {response} number.")),
    Task("round_ten", FAMILY, _single("round", 11, 499, lambda a: str((a + 5) // 10 * 10)),
         ("Round {a} to the nearest ten.", "What is {a} rounded to the nearest ten?", "Give {a} to the nearest ten.",
          "To the nearest ten, what is {a}?"),
         ("{a} rounded to the nearest ten is {response}.", "To the nearest ten, {a} is {response}.")),
    Task("next_number", FAMILY, _single("successor", 1, 998, lambda a: str(a + 1)),
         ("Which number comes after {a}?", "What number follows {a}?", "Give the number after {a}.",
          "Count one up from {a}."),
         ("After {a} comes {response}.", "The number {response} follows {a}.",
          "Counting one up from {a} gives {response}.")),
    Task("story_gain", FAMILY, _story(True),
         ("{who} has {a} {what} and gets {b} more. How many {what} has {who} now?",
          "{other} gives {who} {b} {what}. {who} had {a} before. How many are there now?",
          "{who} had {a} {what}, then bought {b} more. How many in all?",
          "If {who} owns {a} {what} and finds {b}, how many does that make?"),
         ("{who} has {a} {what} and gets {b} more. Now {who} has {response} {what}.",
          "{who} had {a} {what}, then bought {b} more, so there are {response} in all.",
          "{other} gave {who} {b} {what}. {who} had {a} before, which makes {response}.")),
    Task("story_loss", FAMILY, _story(False),
         ("{who} has {a} {what} and loses {b}. How many {what} are left?",
          "{who} gives {b} of {a} {what} to {other}. How many has {who} left?",
          "Of {a} {what}, {who} sells {b}. How many remain?",
          "If {who} owns {a} {what} and breaks {b}, how many are left?"),
         ("{who} has {a} {what} and loses {b}. Now {response} are left.",
          "{who} gives {b} of {a} {what} to {other} and has {response} left.",
          "Of {a} {what}, {who} sells {b}, and {response} remain.")),
)  # fmt: skip
