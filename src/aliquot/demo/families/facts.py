"""Questions about the facts of the world: open ones by subject and attribute, and multiple choice over them.

Only facts that are not held out are asked here. The pretraining text states all of them (see corpus.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import comma
from aliquot.demo.world import ATTRIBUTES, Fact, fact_slots, facts, subjects

FAMILY = "facts"


def fact_key(fact: Fact) -> str:
    """Return the content of a question about a fact, regardless of its wording."""
    return f"fact {fact.entity} {fact.attribute}"


@cache
def _asked() -> tuple[Fact, ...]:
    return tuple(fact for fact in facts() if not fact.held_out)


@cache
def _asked_about(subject: str, attribute: str) -> tuple[Fact, ...]:
    return tuple(fact for fact in _asked() if (fact.subject, fact.attribute) == (subject, attribute))


def _open(subject: str, attribute: str) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        fact = rng.choice(_asked_about(subject, attribute))
        return Item(fact_key(fact), fact.value, fact_slots(fact))

    return draw


def _choice(size: int) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        fact = rng.choice(_asked())
        attribute = ATTRIBUTES[fact.attribute]
        others = rng.sample([value for value in attribute.values if value != fact.value], size - 1)
        options = [fact.value, *others]
        rng.shuffle(options)
        ask = rng.choice(attribute.questions())
        question = ask.format_map(fact_slots(fact))
        slots = {**fact_slots(fact), "question": question, "options": comma(options), "a": attribute.noun}
        return Item(f"{fact_key(fact)} among {comma(sorted(options))}", fact.value, slots)

    return draw


def _check(rng: Random) -> Item:
    fact = rng.choice(_asked())
    attribute = ATTRIBUTES[fact.attribute]
    true = rng.random() < 0.5
    said = fact.value if true else rng.choice([value for value in attribute.values if value != fact.value])
    claim = rng.choice(attribute.sentences()[:3]).format_map({**fact_slots(fact), "v": said})
    key = f"{fact_key(fact)} check {said}"
    return Item(key, "true" if true else "false", {"claim": claim, "claim_bare": claim.rstrip(".")})


def _subject(rng: Random) -> Item:
    subject = rng.choice(subjects())
    entity = rng.choice(subject.entities)
    return Item(f"kind {entity}", subject.noun, {"name": entity})


def _open_tasks() -> list[Task]:
    tasks: list[Task] = []
    for subject in subjects():
        for name in subject.attributes:
            prompts = ATTRIBUTES[name].questions()
            tasks.append(Task(f"{subject.noun}_{name}", FAMILY, _open(subject.noun, name), prompts, ()))
    return tasks


PICK = ("{question} Choose from {options}.", "{question} Is it {options}?", "Pick one of {options}: the {a} of {x}.",
        "Options: {options}. {question}")  # fmt: skip
CHOICES = (
    Task("choose_of_two", "choice", _choice(2), PICK, ()),
    Task("choose_of_three", "choice", _choice(3), PICK, ()),
    Task("choose_of_four", "choice", _choice(4), PICK, ()),
    Task("true_or_false", "choice", _check,
         ("True or false? {claim}", "{claim} Is that true or false?", "Say true or false: {claim}",
          "Check this sentence and say true or false. {claim}"), ()),
    Task("which_kind", "choice", _subject,
         ("What kind of thing is {name}?", "What is {name}?", "Tell me what {name} is.",
          "Say in one word what {name} is.",
          "Do you know what kind of thing {name} is?"),
         ("The kind of thing that {name} is: {response}.",
          "Asked what kind of thing {name} is, the guide says {response}.")),
)  # fmt: skip
TASKS = (*_open_tasks(), *CHOICES)
