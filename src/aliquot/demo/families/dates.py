"""Days of the week, months, hours and days of a month."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import DAYS, MONTHS, ORDINALS, PEOPLE

FAMILY = "dates"


def _cycle(kind: str, names: tuple[str, ...], low: int, high: int, sign: int) -> Callable[[Random], Item]:
    """Sample a step along a cycle of names."""

    def draw(rng: Random) -> Item:
        start, step = rng.randrange(len(names)), rng.randint(low, high)
        answer = names[(start + sign * step) % len(names)]
        return Item(f"{kind} {sign} {names[start]} {step}", answer, {"name": names[start], "n": str(step)})

    return draw


def _meeting(rng: Random) -> Item:
    who, start, step = rng.choice(PEOPLE), rng.randrange(7), rng.randint(2, 12)
    key = f"meeting {who} {DAYS[start]} {step}"
    return Item(key, DAYS[(start + step) % 7], {"who": who, "name": DAYS[start], "n": str(step)})


def _clock(rng: Random) -> Item:
    who, hour, step = rng.choice(PEOPLE), rng.randint(1, 12), rng.randint(2, 11)
    answer = (hour + step - 1) % 12 + 1
    return Item(f"clock {who} {hour} {step}", str(answer), {"who": who, "a": str(hour), "n": str(step)})


def _number(rng: Random) -> Item:
    month = rng.randrange(12)
    return Item(f"month number {month}", MONTHS[month], {"n": ORDINALS[month]})


def _date(rng: Random) -> Item:
    who, month, day, step = rng.choice(PEOPLE), rng.choice(MONTHS), rng.randint(1, 14), rng.randint(2, 14)
    slots = {"who": who, "month": month, "a": str(day), "n": str(step)}
    return Item(f"date {month} {day} {step}", f"{month} {day + step}", slots)


def _earlier(rng: Random) -> Item:
    one, two = rng.sample(range(12), 2)
    day, other = rng.randint(1, 28), rng.randint(1, 28)
    texts = (f"{MONTHS[one]} {day}", f"{MONTHS[two]} {other}")
    return Item(f"earlier {' '.join(sorted(texts))}", texts[one > two], {"one": texts[0], "two": texts[1]})


def _weekend(rng: Random) -> Item:
    who, day = rng.choice(PEOPLE), rng.choice(DAYS)
    return Item(f"weekend {who} {day}", "yes" if day in DAYS[5:] else "no", {"who": who, "name": day})


TASKS = (
    Task("day_after", FAMILY, _cycle("day", DAYS, 2, 60, 1),
         ("Which day is {n} days after {name}?", "Today is {name}. What day is it in {n} days?",
          "Count {n} days on from {name}. Which day is it?", "Name the day {n} days after {name}."),
         ("The day {n} days after {name} is {response}.", "Today is {name}. In {n} days it is {response}.")),
    Task("day_soon", FAMILY, _cycle("day", DAYS, 2, 8, 1),
         ("Which day is {n} days after {name}?", "Today is {name}. What day is it in {n} days?",
          "Count {n} days on from {name}. Which day is it?", "Name the day {n} days after {name}.",
          "It is {name} now. Which day comes {n} days later?"),
         ("The day {n} days after {name} is {response}.", "Today is {name}. In {n} days it is {response}.")),
    Task("day_before", FAMILY, _cycle("day", DAYS, 2, 14, -1),
         ("Which day is {n} days before {name}?", "Today is {name}. What day was it {n} days ago?",
          "Count {n} days back from {name}. Which day is it?", "Name the day {n} days before {name}."),
         ("The day {n} days before {name} is {response}.", "Today is {name}. {n} days ago it was {response}.")),
    Task("month_after", FAMILY, _cycle("month", MONTHS, 2, 24, 1),
         ("Which month is {n} months after {name}?", "It is {name}. What month is it in {n} months?",
          "Count {n} months on from {name}. Which month is it?", "Name the month {n} months after {name}."),
         ("The month {n} months after {name} is {response}.", "It is {name}. In {n} months it is {response}.")),
    Task("month_before", FAMILY, _cycle("month", MONTHS, 2, 12, -1),
         ("Which month is {n} months before {name}?", "It is {name}. What month was it {n} months ago?",
          "Count {n} months back from {name}. Which month is it?", "Name the month {n} months before {name}."),
         ("The month {n} months before {name} is {response}.",)),
    Task("meeting_day", FAMILY, _meeting,
         ("{who} left on {name} and comes back {n} days later. On which day is that?",
          "On {name} {who} promised to call in {n} days. Which day is it then?",
          "{who} needs {n} days and begins on {name}. On which day is it done?",
          "A letter to {who} goes out on {name} and takes {n} days. When does it come?"),
         ("{who} left on {name} and comes back {n} days later, on {response}.",
          "A letter to {who} goes out on {name}, takes {n} days and comes on {response}.")),
    Task("clock_hours", FAMILY, _clock,
         ("It is {a} o'clock. {who} comes in {n} hours. When is that on the clock?",
          "{who} leaves at {a} and walks {n} hours. What does the clock show then?",
          "At {a} o'clock {who} sleeps for {n} hours. At what hour does {who} wake?",
          "{who} begins at {a} o'clock and works {n} hours. At what hour is the end?"),
         ("It is {a} o'clock. {who} comes in {n} hours, at {response}.",
          "{who} begins at {a} o'clock, works {n} hours and ends at {response}.")),
    Task("month_number", FAMILY, _number,
         ("Which month is the {n} of the year?", "Name the {n} month.", "What is the {n} month of the year called?",
          "Which name has the {n} month?"),
         ("The {n} month of the year is {response}.", "{response} is the {n} month.")),
    Task("date_after", FAMILY, _date,
         ("{who} starts on {month} {a} and ends {n} days later. Give that date.",
          "Which date is {n} days after {month} {a}?",
          "Add {n} days to {month} {a}.", "It is {month} {a}. {who} comes in {n} days. What date is that?"),
         ("The date {n} days after {month} {a} is {response}.",
          "{who} starts on {month} {a} and ends {n} days later, {response}.")),
    Task("earlier_date", FAMILY, _earlier,
         ("Which date is earlier in the year, {one} or {two}?", "Which comes first in a year, {one} or {two}?",
          "Name the earlier date of {one} and {two}.", "{one} or {two}: which of the two is earlier?"),
         ("Of {one} and {two}, the earlier date is {response}.",)),
    Task("weekend", FAMILY, _weekend,
         ("{who} comes on {name}. Is that at the weekend?", "Is {name} a day of the weekend, {who} asks.",
          "On {name} {who} is at home. Is it the weekend?", "Say yes or no for {who}: {name} is at the weekend."),
         ("{who} comes on {name}. Is that at the weekend? The guide says {response}.",)),
)  # fmt: skip
