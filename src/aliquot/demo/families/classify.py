"""Sorting a thing into a class by a rule that the prompt states."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import COLOURS, NONSENSE, NOUNS, PEOPLE, comma

FAMILY = "classify"
GOOD = ("lovely", "kind", "bright", "useful", "fresh", "splendid")
BAD = ("dull", "rude", "broken", "stale", "ugly", "noisy")


def _threshold(rng: Random) -> Item:
    one, two = rng.sample(NONSENSE, 2)
    limit, n = rng.randint(10, 90), rng.randint(1, 99)
    slots = {"one": one, "two": two, "limit": str(limit), "n": str(n)}
    return Item(f"threshold {one} {two} {limit} {n}", one if n > limit else two, slots)


def _member(rng: Random) -> Item:
    one, two = rng.sample(NONSENSE, 2)
    words = rng.sample(NOUNS, 4)
    place = rng.randrange(4)
    slots = {"one": one, "two": two, "left": comma(words[:2]), "right": comma(words[2:]), "word": words[place]}
    return Item(f"member {one} {two} {comma(words)} {words[place]}", one if place < 2 else two, slots)


def _parity(rng: Random) -> Item:
    one, two = rng.sample(NONSENSE, 2)
    n = rng.randint(1, 99)
    return Item(f"class parity {one} {two} {n}", two if n % 2 else one, {"one": one, "two": two, "n": str(n)})


def _initial(rng: Random) -> Item:
    word, other, third = rng.sample(NOUNS, 3)
    one, two = rng.sample(NONSENSE, 2)
    letter = rng.choice((word, other))[0]
    slots = {"word": word, "third": third, "letter": letter, "one": one, "two": two}
    return Item(f"class initial {word} {letter} {one} {two}", one if word[0] == letter else two, slots)


def _mood(rng: Random) -> Item:
    good = rng.random() < 0.5
    word, noun, who = rng.choice(GOOD if good else BAD), rng.choice(NOUNS), rng.choice(PEOPLE)
    return Item(f"mood {word} {noun} {who}", "good" if good else "bad", {"word": word, "noun": noun, "who": who})


def _colour(rng: Random) -> Item:
    one, two = rng.sample(NONSENSE, 2)
    rule, seen, noun = rng.choice(COLOURS), rng.choice(COLOURS), rng.choice(NOUNS)
    if rng.random() < 0.5:
        seen = rule
    slots = {"one": one, "two": two, "rule": rule, "seen": seen, "noun": noun}
    return Item(f"class colour {one} {two} {rule} {seen} {noun}", one if rule == seen else two, slots)


def _length(rng: Random) -> Item:
    one, two = rng.sample(NONSENSE, 2)
    words = rng.sample(NOUNS, rng.randint(1, 5))
    slots = {"one": one, "two": two, "list": comma(words)}
    return Item(f"class length {one} {two} {comma(words)}", one if len(words) > 3 else two, slots)


def _odd_one(kind: str, draw_odd: Callable[[Random], tuple[list[str], str]]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        words, odd = draw_odd(rng)
        words.insert(rng.randrange(len(words) + 1), odd)
        return Item(f"odd {kind} {comma(sorted(words))}", odd, {"list": comma(words)})

    return draw


def _number_among_words(rng: Random) -> tuple[list[str], str]:
    return rng.sample(NOUNS, 3), str(rng.randint(1, 99))


def _word_among_numbers(rng: Random) -> tuple[list[str], str]:
    return [str(n) for n in rng.sample(range(1, 99), 3)], rng.choice(NOUNS)


def _colour_among_people(rng: Random) -> tuple[list[str], str]:
    return rng.sample(PEOPLE, 3), rng.choice(COLOURS)


ODD = ("Which one does not belong: {list}?", "Find the odd one out: {list}.",
       "Name the one of {list} that is unlike the others.",
       "{list}. Which is the odd one?")  # fmt: skip
ODD_SAY = ("The odd one of {list} is {response}.", "In {list}, {response} does not belong.")
TASKS = (
    Task("class_threshold", FAMILY, _threshold,
         ("Numbers above {limit} are {one}, all others {two}. What is {n}?",
          "Call a number {one} if it is above {limit}, else {two}. Class of {n}?",
          "More than {limit} means {one}, otherwise {two}. Classify {n}.",
          "By the rule over {limit} is {one} and the rest {two}, what is {n}?"),
         ("Numbers above {limit} are {one}, all others {two}. So {n} is {response}.",
          "More than {limit} means {one}, otherwise {two}: {n} is {response}.")),
    Task("class_member", FAMILY, _member,
         ("{one}: {left}. {two}: {right}. Which class has {word}?",
          "The class {one} has {left}; {two} has {right}. Where is {word}?",
          "{left} are {one}, but {right} are {two}. What is {word}?",
          "Given {one}: {left} and {two}: {right}, classify {word}."),
         ("{one}: {left}. {two}: {right}. So {word} is {response}.",
          "{left} are {one}, but {right} are {two}. The class of {word} is {response}.")),
    Task("class_parity", FAMILY, _parity,
         ("Even numbers are {one}, odd numbers {two}. What is {n}?",
          "Call even numbers {one} and odd ones {two}. Classify {n}.",
          "{one} means even, {two} means odd. Which is {n}?", "If even is {one} and odd is {two}, what is {n}?"),
         ("Even numbers are {one}, odd numbers {two}. So {n} is {response}.",
          "{one} means even, {two} means odd: {n} is {response}.")),
    Task("class_initial", FAMILY, _initial,
         ("Words with {letter} at the start are {one}, others {two}. What is {word}?",
          "Call a word {one} if it begins with {letter}, else {two}. Classify {word}.",
          "The letter {letter} at the start means {one}, any other {two}. Which is {word}?",
          "If words on {letter} are {one} and the rest {two}, what is {word}?"),
         ("Words with {letter} at the start are {one}, others {two}. So {word} is {response}.",)),
    Task("class_mood", FAMILY, _mood,
         ("{who} says the {noun} is {word}. Is that good or bad?", "Good or bad: {who} finds the {noun} {word}?",
          "The {noun} is {word}, writes {who}. Does it sound good or bad?",
          "Is it good or bad if {who} calls the {noun} {word}?"),
         ("{who} says the {noun} is {word}. That is {response}.",
          "The {noun} is {word}, writes {who}, and it sounds {response}.")),
    Task("class_colour", FAMILY, _colour,
         ("Things that are {rule} are {one}, others {two}. What is a {seen} {noun}?",
          "Put {rule} things in {one} and the rest in {two}. Where goes a {seen} {noun}?",
          "{one} is for {rule} things, {two} for all others. Classify the {seen} {noun}.",
          "If {rule} means {one} and any other colour {two}, what is the {seen} {noun}?"),
         ("Things that are {rule} are {one}, others {two}. So the {seen} {noun} is {response}.",
          "{one} is for {rule} things, {two} for all others: the {seen} {noun} is {response}.")),
    Task("class_length", FAMILY, _length,
         ("Lists of more than three words are {one}, others {two}. What is {list}?",
          "Call a list {one} if it has more than three words, else {two}: {list}.",
          "{one} means more than three words, {two} means three or fewer. Classify {list}.",
          "If long lists, above three words, are {one} and the rest {two}, what is {list}?"),
         ("Lists of more than three words are {one}, others {two}. So {list} is {response}.",)),
    Task("odd_number", FAMILY, _odd_one("number", _number_among_words), ODD, ODD_SAY),
    Task("odd_word", FAMILY, _odd_one("word", _word_among_numbers), ODD, ODD_SAY),
    Task("odd_colour", FAMILY, _odd_one("colour", _colour_among_people), ODD, ODD_SAY),
)  # fmt: skip
