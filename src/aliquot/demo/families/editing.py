"""Small changes to a sentence: replace, delete, swap, negate."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import COLOURS, NOUNS, PEOPLE

FAMILY = "editing"
VERBS = ("sees", "likes", "takes", "finds", "wants", "paints")


def _sentence(rng: Random) -> tuple[str, str, str, str]:
    return rng.choice(PEOPLE), rng.choice(VERBS), rng.choice(COLOURS), rng.choice(NOUNS)


def _replace(rng: Random) -> Item:
    who, verb, colour, noun = _sentence(rng)
    other = rng.choice([word for word in NOUNS if word != noun])
    text = f"{who} {verb} the {noun}"
    slots = {"text": text, "old": noun, "new": other, "colour": colour}
    return Item(f"replace {text} {other}", f"{who} {verb} the {other}", slots)


def _delete(rng: Random) -> Item:
    who, verb, colour, noun = _sentence(rng)
    text = f"{who} {verb} the {colour} {noun}"
    return Item(f"delete {text}", f"{who} {verb} the {noun}", {"text": text, "old": colour})


def _insert(rng: Random) -> Item:
    who, verb, colour, noun = _sentence(rng)
    slots = {"text": f"{who} {verb} the {noun}", "new": colour, "noun": noun}
    return Item(f"insert {who} {verb} {noun} {colour}", f"{who} {verb} the {colour} {noun}", slots)


def _part(kind: str, part: int) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        words = _sentence(rng)
        who, verb, colour, noun = words
        text = f"{who} {verb} the {colour} {noun}"
        return Item(f"part {kind} {text}", words[part], {"text": text})

    return draw


def _rename(rng: Random) -> Item:
    who, verb, _, noun = _sentence(rng)
    other = rng.choice([name for name in PEOPLE if name != who])
    slots = {"text": f"{who} {verb} the {noun}", "old": who, "new": other}
    return Item(f"rename {who} {verb} {noun} {other}", f"{other} {verb} the {noun}", slots)


REPLACE = ("In \"{text}\", replace {old} by {new}.", "Write \"{text}\" with {new} instead of {old}.",
           "Change {old} to {new} in this sentence: {text}", "Put {new} in the place of {old}: {text}")  # fmt: skip
REPLACE_SAY = ("With {new} instead of {old}, \"{text}\" becomes \"{response}\".",
               "If you replace {old} by {new}, the sentence \"{text}\" reads \"{response}\".")  # fmt: skip
TASKS = (
    Task("edit_replace", FAMILY, _replace, REPLACE, REPLACE_SAY),
    Task("edit_rename", FAMILY, _rename, REPLACE, REPLACE_SAY),
    Task("edit_delete", FAMILY, _delete,
         ("Leave {old} out of \"{text}\".", "Write \"{text}\" without {old}.",
          "Delete {old} from this sentence: {text}",
          "Take the word {old} out: {text}"),
         ("Without {old}, \"{text}\" becomes \"{response}\".",
          "If you delete {old}, the sentence \"{text}\" reads \"{response}\".")),
    Task("edit_insert", FAMILY, _insert,
         ("Put {new} before {noun} in \"{text}\".", "Write \"{text}\" with a {new} {noun}.",
          "Add the colour {new} to this sentence: {text}",
          "Say that the {noun} is {new}: {text}"),
         ("With {new} before {noun}, \"{text}\" becomes \"{response}\".",)),
    Task("find_actor", FAMILY, _part("actor", 0),
         ("Who acts in \"{text}\"?", "Name the person in \"{text}\".", "Find the subject of this sentence: {text}",
          "Who does it? {text}."),
         ("In \"{text}\" the person who acts is {response}.", "The subject of \"{text}\" is {response}.")),
    Task("find_verb", FAMILY, _part("verb", 1),
         ("Which word is the verb of \"{text}\"?", "Name the verb in \"{text}\".",
          "Find the verb of this sentence: {text}", "What is the verb? {text}."),
         ("The verb of \"{text}\" is {response}.",)),
    Task("find_colour", FAMILY, _part("colour", 2),
         ("Which colour is named in \"{text}\"?", "Name the colour in \"{text}\".",
          "Find the colour in this sentence: {text}", "What colour is it? {text}."),
         ("The colour named in \"{text}\" is {response}.",)),
    Task("find_object", FAMILY, _part("object", 3),
         ("Which thing is named in \"{text}\"?", "Name the thing in \"{text}\".",
          "Find the object of this sentence: {text}", "What thing is it? {text}."),
         ("The thing named in \"{text}\" is {response}.", "The object of \"{text}\" is {response}.")),
)  # fmt: skip
