"""Short stories: who has what, where things are, who did it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import COLOURS, HOLDERS, NOUNS, PEOPLE, PLACES

FAMILY = "reading"


def _moved(rng: Random) -> Item:
    one, two = rng.sample(PEOPLE, 2)
    thing, other = rng.sample(NOUNS, 2)
    places = rng.sample(HOLDERS, 3)
    lines = [f"{one} puts the {thing} in the {places[0]}.", f"{two} puts the {other} in the {places[1]}."]
    rng.shuffle(lines)
    where = places[0]
    if rng.random() < 0.6:
        lines.append(f"{two} moves the {thing} to the {places[2]}.")
        where = places[2]
    return Item(f"moved {' '.join(lines)} {thing}", where, {"story": " ".join(lines), "thing": thing})


def _given(rng: Random) -> Item:
    one, two, three = rng.sample(PEOPLE, 3)
    thing = rng.choice(NOUNS)
    lines = [f"{one} has the {thing}.", f"{one} gives it to {two}."]
    owner = two
    if rng.random() < 0.6:
        lines.append(f"{two} gives it to {three}.")
        owner = three
    return Item(f"given {' '.join(lines)}", owner, {"story": " ".join(lines), "thing": thing})


def _walk(rng: Random) -> Item:
    one, two = rng.sample(PEOPLE, 2)
    places = rng.sample(PLACES, 3)
    lines = [f"{one} goes to the {places[0]}.", f"{two} goes to the {places[1]}.", f"{one} goes to the {places[2]}."]
    asked = rng.choice((one, two))
    where = places[2] if asked == one else places[1]
    return Item(f"walk {' '.join(lines)} {asked}", where, {"story": " ".join(lines), "who": asked})


def _detail(kind: str, part: int) -> Callable[[Random], Item]:
    """Sample a sentence of five details and ask for one of them."""

    def draw(rng: Random) -> Item:
        who, colour, thing, place = rng.choice(PEOPLE), rng.choice(COLOURS), rng.choice(NOUNS), rng.choice(PLACES)
        verb = rng.choice(("found", "lost", "hid", "sold", "broke"))
        story = f"{who} {verb} a {colour} {thing} in the {place}."
        slots = {"story": story, "verb": verb, "thing": thing}
        return Item(f"detail {kind} {story}", (who, colour, thing, place)[part], slots)

    return draw


def _shared(rng: Random) -> Item:
    one, two, three = rng.sample(PEOPLE, 3)
    thing, other = rng.sample(NOUNS, 2)
    lines = [f"{one} likes {thing}.", f"{two} likes {other}.", f"{three} likes {thing}."]
    rng.shuffle(lines)
    return Item(f"shared {' '.join(lines)}", two, {"story": " ".join(lines)})


def _swap(rng: Random) -> Item:
    a, b, c = rng.sample(PEOPLE, 3)
    x, y, z = rng.sample(COLOURS, 3)
    holds = {a: x, b: y, c: z}
    one, two = rng.sample((a, b, c), 2)
    holds[one], holds[two] = holds[two], holds[one]
    asked = rng.choice((a, b, c))
    story = f"{a} has {x}, {b} has {y}, {c} has {z}. {one} and {two} swap."
    return Item(f"swap {story} {asked}", holds[asked], {"story": story, "who": asked})


def _details(name: str, part: int, question: str) -> Task:
    return Task(
        f"reading_{name}", FAMILY, _detail(name, part),
        (f"{{story}} {question}", f"Read this: {{story}} {question}", f"{question} The story says: {{story}}",
         f"{{story}} Please say: {question}"),
        (f"{{story}} Asked {question[0].lower()}{question[1:]} the guide says {{response}}.",
         f"The story says: {{story}} So {question[0].lower()}{question[1:]} {{response}}."),
    )  # fmt: skip


TASKS = (
    Task("track_object", FAMILY, _moved,
         ("{story} Where is the {thing}?", "{story} In what do you find the {thing} now?",
          "Read this: {story} Where is the {thing} at the end?",
          "{story} Name the place of the {thing}."),
         ("{story} Now the {thing} is in the {response}.",
          "{story} At the end you find the {thing} in the {response}.")),
    Task("track_owner", FAMILY, _given,
         ("{story} Who has the {thing} now?", "{story} With whom is the {thing} at the end?",
          "Read this: {story} Name the owner of the {thing}.",
          "{story} Whose is the {thing} now?"),
         ("{story} Now the {thing} is with {response}.",
          "{story} At the end the owner of the {thing} is {response}.")),
    Task("track_person", FAMILY, _walk,
         ("{story} Where is {who} now?", "{story} In which place is {who}?",
          "Read this: {story} Where do you find {who}?",
          "{story} Name the place where {who} is."),
         ("{story} Now {who} is in the {response}.", "{story} You find {who} in the {response}.")),
    Task("track_swap", FAMILY, _swap,
         ("{story} What has {who} now?", "{story} Which colour is with {who}?",
          "Read this: {story} What does {who} hold?",
          "{story} Name the colour of {who} at the end."),
         ("{story} Now {who} has {response}.", "{story} At the end {who} holds {response}.")),
    Task("reading_other", FAMILY, _shared,
         ("{story} Who likes something else than the others?", "{story} Who is alone in this taste?",
          "Read this: {story} Whose taste is different?",
          "{story} Name the one who differs."),
         ("{story} The one who differs is {response}.", "{story} A different taste has {response}.")),
    _details("who", 0, "Who was it?"),
    _details("colour", 1, "What colour was it?"),
    _details("thing", 2, "What thing was it?"),
    _details("place", 3, "Where was it?"),
)  # fmt: skip
