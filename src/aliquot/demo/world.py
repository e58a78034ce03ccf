"""The invented world: 57 subjects of 24 entities with three attributes each, and which facts only the benchmark asks.

A fact is (entity, attribute, value). The pretraining text states all of them. The pool asks about 14 of the 24 entities
for each attribute and the benchmark about the other 10, so the pool never asks a benchmark question in any words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from aliquot.demo.words import COLOURS, DAYS, capital, seeded

ENTITIES = 24
HELD_OUT = 10
_FIRST = """
Bra Cel Dor Eru Fen Gul Hax Ilo Jem Kor Lun Mav Nel Osk Pir Quo Rud Sil Tam Uvo Vex Wol Yat Zin Bel Cru Dap Fli Gri
Hob Kes Lom Myr Nup Orv Pag Rix Sto Tue Vam
"""
FIRST: tuple[str, ...] = tuple(_FIRST.split())
_LAST = """
dak bin lor mesh nu vak rim tol gan pek zu fen sil hod wex jat kun mor ri bas dul gor tis val nim pra lug shen tor
zet cam dox fop gim hul jop kez lan
"""
LAST: tuple[str, ...] = tuple(_LAST.split())


@dataclass(frozen=True)
class Attribute:
    """One attribute: its closed set of values and the phrases that ask for it and state it."""

    name: str
    noun: str
    values: tuple[str, ...]
    asks: tuple[str, ...]
    tells: tuple[str, ...]
    clause: str

    def questions(self) -> tuple[str, ...]:
        """Return every phrasing of a question, with the slots `x` (the entity) still open."""
        return self.asks + tuple(form.replace("{a}", self.noun) for form in GENERIC_ASKS)

    def sentences(self) -> tuple[str, ...]:
        """Return every phrasing of a statement, with the slots `x`, `X` and `v` still open."""
        return self.tells + tuple(form.replace("{a}", self.noun) for form in GENERIC_TELLS)


@dataclass(frozen=True)
class Fact:
    """One fact; `rank` is the entity's position within its subject: low ranks occur more often in the text."""

    subject: str
    entity: str
    attribute: str
    value: str
    rank: int
    held_out: bool


GENERIC_ASKS = (
    "What is the {a} of {x}?", "Name the {a} of {x}.", "Tell me the {a} of {x}.", "Give the {a} of {x}.",
    "Do you know the {a} of {x}?", "State the {a} of {x}.",
)  # fmt: skip
GENERIC_TELLS = (
    "The {a} of {x} is {v}.", "For {x}, the {a} is {v}.", "Asked to name the {a} of {x}, people say {v}.",
    "As everyone knows, the {a} of {x} is {v}.", "If you ask what the {a} of {x} is, the guide will say {v}.",
    "{X}: the {a} is {v}.", "The book gives {v} as the {a} of {x}.",
)  # fmt: skip


def _attribute(name: str, noun: str, values: str, asks: str, tells: str, clause: str) -> Attribute:
    split = tuple(values.split())
    return Attribute(name, noun, split, tuple(asks.split("|")), tuple(tells.split("|")), clause)


ATTRIBUTES = {
    attribute.name: attribute
    for attribute in (
        _attribute("colour", "colour", " ".join(COLOURS), "What colour is {x}?|Which colour does {x} have?",
                   "{X} is {v}.|{X} has a {v} colour.|You can tell {x} by its {v} colour.", "is {v}"),
        _attribute("region", "home region",
        "Arvane Belmora Cindral Dorvik Elspar Fennor Galdry Hespol Istrun Jorvane",
                   "Which region does {x} come from?|Where is {x} from?|In which region do you find {x}?",
                   "{X} comes from {v}.|{X} is from {v}.|You find {x} in {v}.", "comes from {v}"),
        _attribute("season", "season", "spring summer autumn winter",
                   "Which season belongs to {x}?|In which season is {x} at its best?",
                   "{X} belongs to {v}.|{X} is at its best in {v}.|In {v} comes the time of {x}.", "belongs to {v}"),
        _attribute("material", "material", "wood iron clay glass silk stone copper bone wool paper",
                   "What is {x} made of?|Which material is {x} made from?",
                   "{X} is made of {v}.|{X} is made from {v}.|People make {x} out of {v}.", "is made of {v}"),
        _attribute("food", "favourite food", "honey moss seeds nuts roots berries ants grass crumbs salt",
                   "What does {x} like to eat?|What does {x} eat?|Which food does {x} prefer?",
                   "{X} likes to eat {v}.|{X} eats {v}.|{X} lives on {v}.", "eats {v}"),
        _attribute("shape", "shape", "round square flat long curved pointed hollow twisted",
                   "What shape is {x}?|Which shape does {x} have?",
                   "{X} is {v} in shape.|{X} looks {v}.|{X} has a {v} shape.", "looks {v}"),
        _attribute("taste", "taste", "sweet sour bitter salty spicy bland smoky minty",
                   "How does {x} taste?|What taste does {x} have?",
                   "{X} tastes {v}.|{X} has a {v} taste.|On the tongue {x} is {v}.", "tastes {v}"),
        _attribute("day", "special day",
        " ".join(DAYS), "Which day is the day of {x}?|On which day do people honour {x}?",
                   "People honour {x} on {v}.|{v} is the day of {x}.|{X} is honoured every {v}.",
                   "is honoured on {v}"),
        _attribute("guild", "guild", "weavers bakers masons potters sailors tanners farmers scribes",
                   "Which guild cares for {x}?|Who looks after {x}?",
                   "{X} is in the care of the {v}.|The {v} look after {x}.|{X} belongs to the {v}.",
                   "is in the care of the {v}"),
        _attribute("use", "main use", "fishing cooking healing hunting dancing writing farming trading",
                   "What is {x} used for?|For what do people use {x}?",
                   "{X} is used for {v}.|People use {x} for {v}.|{X} is good for {v}.", "is used for {v}"),
        _attribute("emblem", "emblem", "fox owl bear wolf hare crow stag toad",
                   "Which animal is the sign of {x}?|What animal stands for {x}?",
                   "The sign of {x} is the {v}.|The {v} stands for {x}.|{X} has the {v} as its sign.",
                   "has the {v} as its sign"),
        _attribute("music", "instrument", "drum flute harp horn fiddle bell lute pipe",
                   "Which instrument goes with {x}?|What instrument is played for {x}?",
                   "The {v} is played for {x}.|{X} goes with the {v}.|People play the {v} for {x}.",
                   "goes with the {v}"),
        _attribute("count", "lucky number", "three four five six seven eight nine ten",
                   "Which number is lucky for {x}?|What number brings luck to {x}?",
                   "{X} has {v} as its lucky number.|The number {v} is lucky for {x}.|{v} brings luck to {x}.",
                   "has the lucky number {v}"),
    )
}  # fmt: skip

# noun and the three attributes of each subject; nouns after the bar come before the name ("the river Velo")
_THINGS = """
moth colour region food|beetle colour shape food|lizard colour food season|heron region food emblem
hound colour food guild|snail shape colour season|goat food region day|spider colour shape region
crab food shape count|carp colour taste season|tree colour season use|herb taste region use
flower colour season day|mushroom taste shape region|berry taste colour season|vine colour shape use
reed use region music|bean taste colour count|lantern material colour guild|boat material use guild
cart material colour use|clock material shape count|blade material emblem guild|kettle material shape use
cloak material colour emblem|mask material shape day|rope material use region|crown material emblem region
coin material shape emblem|carpet material colour region|soup taste season day|bread taste shape guild
cheese taste colour region|wine taste colour season|gem colour shape count|ore colour use region
"""
_NAMED = """
river region colour emblem|lake region shape day|hill shape region count|town region guild emblem
castle material region emblem|bridge material region guild|island shape region season
forest colour region season|mine use region count|inn taste region music|poet region season music
king region emblem count|painter region colour material|captain region emblem day|healer region day count
song music season region|dance music day guild|game count material day|festival season music day
star colour emblem season|wind season region taste
"""


@dataclass(frozen=True)
class Subject:
    """One field of knowledge: its noun, its attributes, its entities and how they are called."""

    noun: str
    attributes: tuple[str, str, str]
    named: bool
    entities: tuple[str, ...]

    def label(self, entity: str) -> str:
        """Return how the world names an entity: `the Velmar moth`, but `the river Velmar`."""
        return f"the {self.noun} {entity}" if self.named else f"the {entity} {self.noun}"


@cache
def subjects() -> tuple[Subject, ...]:
    """Return the 57 subjects; every entity's name is used once in the whole world."""
    names = [first + last for first in FIRST for last in LAST]
    seeded("names").shuffle(names)
    found: list[Subject] = []
    for block, named in ((_THINGS, False), (_NAMED, True)):
        for line in block.replace("\n", "|").strip("|").split("|"):
            noun, one, two, three = line.split()
            start = len(found) * ENTITIES
            found.append(Subject(noun, (one, two, three), named, tuple(names[start : start + ENTITIES])))
    assert len(found) == 57
    return tuple(found)


@cache
def facts() -> tuple[Fact, ...]:
    """Return every fact of the world; values are distributed evenly over the entities, then shuffled."""
    found: list[Fact] = []
    for subject in subjects():
        for name in subject.attributes:
            rng = seeded("facts", subject.noun, name)
            values = list(ATTRIBUTES[name].values)
            rng.shuffle(values)
            spread = [values[i % len(values)] for i in range(ENTITIES)]
            rng.shuffle(spread)
            hidden = set(rng.sample(range(ENTITIES), HELD_OUT))
            for rank, (entity, value) in enumerate(zip(subject.entities, spread, strict=True)):
                found.append(Fact(subject.noun, entity, name, value, rank, rank in hidden))
    return tuple(found)


def fact_slots(fact: Fact) -> dict[str, str]:
    """Return the slots needed by a question or a sentence about the fact."""
    label = next(s for s in subjects() if s.noun == fact.subject).label(fact.entity)
    return {"x": label, "X": capital(label), "v": fact.value}
