"""The pretraining text: the facts of the world and worked examples of the skills, as plain statements.

It never contains the instruction format or a held-out instance of a skill. Held-out *facts* are stated like all others:
the benchmark asks facts that the text states and the pool does not ask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from random import Random

from aliquot.demo.families import BY_NAME, SKILLS, TASKS
from aliquot.demo.families.base import Task
from aliquot.demo.pool import fresh, wrap
from aliquot.demo.words import NONSENSE, NOUNS, PEOPLE, capital, seeded
from aliquot.demo.world import ATTRIBUTES, ENTITIES, Fact, fact_slots, facts

FACT_SHARE = 0.18
HEARD_SHARE = 0.08  # requests without answers: the model sees the words of requests, not what follows them
HEARD = ('"{prompt}" asked {who}.', '{who} said: "{prompt}"', "{who} wrote on a card: {prompt}",
         "Answer me! {prompt}", "{prompt}")  # fmt: skip
SONG_SHARE = 0.08  # words repeated: dense practice in copying, without which the skills emerge late or not at all
SONGS = (
    "They sang {a}. Then again {a}.",
    "{a}; once more: {a}.",
    "{who} says {a} and {other} says {a}.",
    "{a}. {a}. {a}.",
)
STOCKS = (NOUNS, NOUNS, PEOPLE, NONSENSE, tuple("abcdefghijklmnopqrstuvwxyz"), tuple(str(n) for n in range(100)))
TWICE = 0.3  # share of examples stated a second time, mostly in other words: this teaches looking back
SKEW = 3.6  # the higher its rank, the less often an entity occurs: exp(-rank / SKEW); the rarest are hardly known


@cache
def _slots() -> tuple[dict[str, str], ...]:
    return tuple(fact_slots(fact) for fact in facts())


@cache
def _weights() -> tuple[float, ...]:
    return tuple(accumulate(math.exp(-fact.rank / SKEW) for fact in facts()))


@cache
def _told() -> tuple[Task, ...]:
    return tuple(task for task in (*SKILLS, BY_NAME["which_kind"]) if task.statements)


def _sentence(fact: Fact, slots: dict[str, str], rng: Random) -> str:
    return capital(rng.choice(ATTRIBUTES[fact.attribute].sentences()).format_map(slots))


def _portrait(index: int, rng: Random) -> str:
    """State all three facts of one entity in one sentence, in any order."""
    subject, place = divmod(index, 3 * ENTITIES)
    place %= ENTITIES
    about = [subject * 3 * ENTITIES + attribute * ENTITIES + place for attribute in range(3)]
    rng.shuffle(about)
    clauses = [ATTRIBUTES[facts()[i].attribute].clause.replace("{v}", facts()[i].value) for i in about]
    return f"{_slots()[index]['X']} {clauses[0]}, {clauses[1]} and {clauses[2]}."


def _fact_lines(rng: Random) -> list[str]:
    chosen = rng.choices(range(len(facts())), cum_weights=_weights(), k=rng.randint(1, 4))
    return [_portrait(i, rng) if rng.random() < 0.3 else _sentence(facts()[i], _slots()[i], rng) for i in chosen]


def _skill_lines(rng: Random) -> list[str]:
    """Work through one to three examples, of one task or of several."""
    task = rng.choice(_told())
    lines: list[str] = []
    for _ in range(rng.randint(1, 3)):
        item = fresh(task, rng)
        lines += [task.tell(item, rng) for _ in range(2 if rng.random() < TWICE else 1)]
        if rng.random() < 0.5:
            task = rng.choice(_told())
    return lines


def _heard_lines(rng: Random) -> list[str]:
    """Quote one or two requests of any task, without answers."""
    lines: list[str] = []
    for _ in range(rng.randint(1, 2)):
        task = rng.choice(SKILLS) if rng.random() < 0.7 else rng.choice(TASKS)
        item = fresh(task, rng)
        prompt = wrap(task.ask(item, rng.randrange(len(task.prompts))), rng)
        lines.append(rng.choice(HEARD).format(prompt=prompt, who=rng.choice(PEOPLE)))
    return lines


def _song_lines(rng: Random) -> list[str]:
    """Repeat a few words of one kind, as in a song."""
    stock = rng.choice(STOCKS)
    words = [rng.choice(stock) for _ in range(rng.randint(2, 7))]
    who, other = rng.sample(PEOPLE, 2)
    return [rng.choice(SONGS).format(a=rng.choice((", ", " ")).join(words), who=who, other=other)]


def _lines(rng: Random) -> list[str]:
    draw = rng.random()
    if draw < FACT_SHARE:
        return _fact_lines(rng)
    if draw < FACT_SHARE + HEARD_SHARE:
        return _heard_lines(rng)
    return _song_lines(rng) if draw < FACT_SHARE + HEARD_SHARE + SONG_SHARE else _skill_lines(rng)


def documents(seed: int) -> Iterator[str]:
    """Yield an endless stream of documents: a few sentences each, in one paragraph or one sentence per line."""
    rng = seeded("corpus", seed)
    while True:
        yield rng.choice((" ", "\n")).join(_lines(rng))
