"""Small deductions: orders, kinds, truth values, liars and choices by elimination."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import COLOURS, NONSENSE, PEOPLE, comma

FAMILY = "logic"


def _order(kind: str, more: str, place: int) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        a, b, c = rng.sample(PEOPLE, 3)
        lines = [f"{a} is {more} than {b}.", f"{b} is {more} than {c}."]
        rng.shuffle(lines)
        return Item(f"{kind} {place} {a} {b} {c}", (a, b, c)[place], {"story": " ".join(lines)})

    return draw


def _kinds(rng: Random) -> Item:
    who = rng.choice(PEOPLE)
    a, b, c = rng.sample(NONSENSE, 3)
    true = rng.random() < 0.5
    asked = b if true else c
    slots = {"who": who, "a": a, "b": b, "asked": asked}
    return Item(f"kinds {a} {b} {who} {asked}", "yes" if true else "no", slots)


def _chain(rng: Random) -> Item:
    a, b, c, d = rng.sample(NONSENSE, 4)
    true = rng.random() < 0.5
    asked = c if true else d
    return Item(f"chain {a} {b} {c} {asked}", "yes" if true else "no", {"a": a, "b": b, "c": c, "asked": asked})


def _truth(rng: Random) -> Item:
    """Sample `not`, `and`, `or` over truth values; evaluated from left to right inside brackets."""
    left, right = rng.choice((True, False)), rng.choice((True, False))
    nots = [rng.choice(("", "not ")) for _ in range(2)]
    other = rng.choice((True, False))
    word, outer = rng.choice(("and", "or")), rng.choice(("and", "or"))
    one, two = left != bool(nots[0]), right != bool(nots[1])
    inner = (one and two) if word == "and" else (one or two)
    result = (inner and other) if outer == "and" else (inner or other)
    text = f"({nots[0]}{left} {word} {nots[1]}{right}) {outer} {other}".lower()
    return Item(f"truth {text}", str(result).lower(), {"text": text})


def _liars(rng: Random) -> Item:
    a, b, c = rng.sample(PEOPLE, 3)
    honest = rng.random() < 0.5
    says = [rng.random() < 0.5, rng.random() < 0.5]
    lines = [f"{a} {'tells the truth' if honest else 'lies'}."]
    state = honest
    for who, claim, about in ((b, says[0], a), (c, says[1], b)):
        lines.append(f"{who} says {about} {'tells the truth' if claim else 'lies'}.")
        state = claim == state
    slots = {"story": " ".join(lines), "who": c}
    return Item(f"liars {' '.join(lines)}", "yes" if state else "no", slots)


def _left_over(rng: Random) -> Item:
    people = rng.sample(PEOPLE, 3)
    colours = rng.sample(COLOURS, 3)
    lines = f"{people[0]} takes {colours[0]} and {people[1]} takes {colours[1]}"
    shuffled = rng.sample(colours, 3)
    slots = {"list": comma(shuffled), "story": lines, "who": people[2]}
    return Item(f"left {lines} {people[2]} {comma(sorted(colours))}", colours[2], slots)


def _condition(rng: Random) -> Item:
    who = rng.choice(PEOPLE)
    weather, now = rng.choice(("rain", "snow", "sun", "wind")), rng.choice(("rain", "snow", "sun", "wind"))
    one, two = rng.sample(("reads", "walks", "sleeps", "cooks", "sings", "paints", "swims", "sews"), 2)
    slots = {"who": who, "weather": weather, "now": now, "one": one, "two": two}
    return Item(f"condition {who} {weather} {now} {one} {two}", one if weather == now else two, slots)


def _either(rng: Random) -> Item:
    who, other = rng.sample(PEOPLE, 2)
    one, two = rng.sample(COLOURS, 2)
    slots = {"who": who, "other": other, "one": one, "two": two}
    return Item(f"either {who} {other} {one} {two}", two, slots)


TALL_SAY = ("{story} So the tallest is {response}.", "{story} Of the three, {response} is tallest.")
TASKS = (
    Task("logic_tallest", FAMILY, _order("tall", "taller", 0),
         ("{story} Who is tallest?", "{story} Which of the three is the tallest?",
          "Read this: {story} Name the tallest.",
          "{story} Tell me who is tallest of all."), TALL_SAY),
    Task("logic_shortest", FAMILY, _order("tall", "taller", 2),
         ("{story} Who is shortest?", "{story} Which of the three is the shortest?",
          "Read this: {story} Name the shortest.",
          "{story} Tell me who is shortest of all."),
         ("{story} So the shortest is {response}.", "{story} Of the three, {response} is shortest.")),
    Task("logic_oldest", FAMILY, _order("old", "older", 0),
         ("{story} Who is oldest?", "{story} Which of the three is the oldest?",
          "Read this: {story} Name the oldest.",
          "{story} Tell me who is oldest of all."),
         ("{story} So the oldest is {response}.", "{story} Of the three, {response} is oldest.")),
    Task("logic_slowest", FAMILY, _order("fast", "faster", 2),
         ("{story} Who is slowest?", "{story} Which of the three is the slowest?",
          "Read this: {story} Name the slowest.",
          "{story} Tell me who is slowest of all."),
         ("{story} So the slowest is {response}.", "{story} Of the three, {response} is slowest.")),
    Task("logic_kinds", FAMILY, _kinds,
         ("All {a}s are {b}s. {who} is a {a}. Must {who} be a {asked}?",
          "Every {a} is a {b}. {who} is a {a}. Does it follow that {who} is a {asked}?",
          "{who} is a {a}, and each {a} is a {b}. Is {who} surely a {asked}?",
          "If all {a}s are {b}s and {who} is a {a}, must {who} be a {asked}?"),
         ("All {a}s are {b}s. {who} is a {a}. Must {who} be a {asked}? The guide says {response}.",
          "Every {a} is a {b} and {who} is a {a}. Must {who} be a {asked}: {response}.")),
    Task("logic_chain", FAMILY, _chain,
         ("All {a}s are {b}s and all {b}s are {c}s. Must all {a}s be {asked}s?",
          "Every {a} is a {b}. Every {b} is a {c}. Does it follow that every {a} is a {asked}?",
          "Each {b} is a {c} and each {a} is a {b}. Is each {a} surely a {asked}?",
          "If {a}s are {b}s and {b}s are {c}s, must {a}s be {asked}s?"),
         ("Every {a} is a {b}. Every {b} is a {c}. Must every {a} be a {asked}? The guide says {response}.",)),
    Task("logic_truth", FAMILY, _truth,
         ("What is the value of {text}?", "Work out {text}.", "Is {text} true or false?",
          "Say true or false: {text}."),
         ("The value of {text} is {response}.", "Working out {text} gives {response}.")),
    Task("logic_liars", FAMILY, _liars,
         ("{story} Does {who} tell the truth?", "{story} Is {who} honest?", "Read this: {story} Can we trust {who}?",
          "{story} Say yes or no: {who} is honest."),
         ("{story} Does {who} tell the truth? The guide says {response}.",
          "{story} Whether {who} is honest: {response}.")),
    Task("logic_left_over", FAMILY, _left_over,
         ("There are {list}. {story}. Which one is left for {who}?",
          "{story}. The colours were {list}. What does {who} take?",
          "From {list}, {story}. {who} gets the rest. Which is it?",
          "{story} out of {list}. What remains for {who}?"),
         ("There are {list}. {story}. What is left for {who} is {response}.",
          "From {list}, {story}, so {who} gets {response}.")),
    Task("logic_condition", FAMILY, _condition,
         ("In {weather} {who} {one}, otherwise {who} {two}. Now there is {now}. What does {who} do?",
          "{who} {one} when there is {weather} and {two} when not. Today there is {now}. What happens?",
          "If there is {weather}, {who} {one}; if not, {who} {two}. There is {now}. What follows?",
          "{who} {two} unless there is {weather}, then {who} {one}. It is a day of {now}. What does {who} do?"),
         ("In {weather} {who} {one}, otherwise {who} {two}. Now there is {now}, so {who} {response}.",
          "{who} {one} when there is {weather} and {two} when not. Today there is {now}: {who} {response}.")),
    Task("logic_either", FAMILY, _either,
         ("{who} has {one} or {two}. {other} knows it is not {one}. What has {who}?",
          "The hat of {who} is {one} or {two}, but {other} says not {one}. Which is it?",
          "{who} wears either {one} or {two}, and it is not {one}, says {other}. Which colour?",
          "Either {one} or {two}: {who} chose. {other} saw no {one}. What was chosen?"),
         ("{who} has {one} or {two}. {other} knows it is not {one}, so it is {response}.",)),
)  # fmt: skip
