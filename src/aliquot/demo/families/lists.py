"""Finding, moving, dropping and counting the words of a short list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import NOUNS, ORDINALS, comma

FAMILY = "lists"
Edit = Callable[[list[str]], Sequence[str]]


def _edit(kind: str, sizes: tuple[int, ...], edit: Edit) -> Callable[[Random], Item]:
    """Sample a list of different words; the answer is some rearrangement or part of it."""

    def draw(rng: Random) -> Item:
        words = rng.sample(NOUNS, rng.choice(sizes))
        return Item(f"{kind} {comma(words)}", comma(edit(words)), {"list": comma(words)})

    return draw


def _without(rng: Random) -> Item:
    words = rng.sample(NOUNS, rng.choice((3, 4)))
    gone = rng.choice(words)
    left = [word for word in words if word != gone]
    return Item(f"without {gone} {comma(words)}", comma(left), {"list": comma(words), "word": gone})


def _position(rng: Random) -> Item:
    words = rng.sample(NOUNS, rng.choice((3, 4, 5)))
    place = rng.randrange(len(words))
    slots = {"list": comma(words), "word": words[place]}
    return Item(f"position {words[place]} {comma(words)}", ORDINALS[place], slots)


def _neighbour(step: int) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        words = rng.sample(NOUNS, rng.choice((4, 5)))
        place = rng.randrange(len(words) - 1)
        known, wanted = (words[place], words[place + 1])[::step]
        return Item(f"neighbour {step} {known} {comma(words)}", wanted, {"list": comma(words), "word": known})

    return draw


def _repeated(rng: Random) -> Item:
    words = rng.sample(NOUNS, rng.choice((3, 4)))
    twice = rng.choice(words)
    words.insert(rng.randrange(len(words) + 1), twice)
    return Item(f"repeated {comma(words)}", twice, {"list": comma(words)})


def _contains(rng: Random) -> Item:
    words = rng.sample(NOUNS, 5)
    inside = rng.random() < 0.5
    word = rng.choice(words[:4]) if inside else words[4]
    key = f"contains {word} {comma(words[:4])}"
    return Item(key, "yes" if inside else "no", {"list": comma(words[:4]), "word": word})


def _append(front: bool) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        *words, extra = rng.sample(NOUNS, rng.choice((3, 4)))
        answer = [extra, *words] if front else [*words, extra]
        key = f"append {front} {extra} {comma(words)}"
        return Item(key, comma(answer), {"list": comma(words), "word": extra})

    return draw


def _nth(place: int, name: str) -> Task:
    return Task(
        f"list_{name.replace(' ', '_')}", FAMILY,
        _edit(f"nth {name}", (3, 4, 5), lambda words: [words[place]]),
        (f"What is the {name} word of this list: {{list}}?", f"Give the {name} word of {{list}}.",
         f"Which word is {name} in {{list}}?", f"From the list {{list}}, name the {name} one.",
         f"{{list}}. Which of these words comes {name}?"),
        (f"The {name} word of {{list}} is {{response}}.", f"In the list {{list}} the word {{response}} is {name}.",
         f"{{list}}: of these words {{response}} comes {name}."),
    )  # fmt: skip


TASKS = (
    _nth(0, "first"),
    _nth(1, "second"),
    _nth(2, "third"),
    _nth(-1, "last"),
    _nth(-2, "last but one"),
    Task("list_reverse", FAMILY, _edit("reverse", (2, 3, 4), lambda words: words[::-1]),
         ("Reverse this list: {list}.", "Write {list} in reverse order.", "Turn the list {list} around.",
          "What is {list} backwards?", "Give the words {list} from last to first."),
         ("In reverse order, {list} is {response}.", "The list {list} turned around is {response}.",
          "Backwards, {list} reads {response}.", "From last to first, the words {list} are {response}.")),
    Task("list_swap_ends", FAMILY, _edit("swap", (3, 4), lambda words: [words[-1], *words[1:-1], words[0]]),
         ("Swap the first and the last word of {list}.", "In {list}, let the first and the last word change places.",
          "Exchange the two ends of this list: {list}.", "What is {list} with its first and last word swapped?"),
         ("With its first and last word swapped, {list} is {response}.",
          "If the two ends of {list} change places, it reads {response}.")),
    Task("list_rotate", FAMILY, _edit("rotate", (3, 4), lambda words: [*words[1:], words[0]]),
         ("Move the first word of {list} to the end.", "Put the first word of this list last: {list}.",
          "What is {list} after its first word moves to the end?", "Rotate {list} by one, first word to the end."),
         ("With its first word moved to the end, {list} is {response}.", "Rotated by one, {list} reads {response}.")),
    Task("list_drop_first", FAMILY, _edit("drop first", (3, 4), lambda words: words[1:]),
         ("Drop the first word of {list}.", "Give {list} without its first word.",
          "Leave out the first word: {list}.",
          "What remains of {list} after the first word is gone?"),
         ("Without its first word, {list} is {response}.",
          "If the first word of {list} is gone, {response} remains.")),
    Task("list_drop_last", FAMILY, _edit("drop last", (3, 4), lambda words: words[:-1]),
         ("Drop the last word of {list}.", "Give {list} without its last word.", "Leave out the last word: {list}.",
          "What remains of {list} after the last word is gone?"),
         ("Without its last word, {list} is {response}.", "If the last word of {list} is gone, {response} remains.")),
    Task("list_remove", FAMILY, _without,
         ("Remove {word} from the list {list}.", "Take {word} out of {list}.", "What is {list} without {word}?",
          "Here are some words: {list}. Leave out {word}."),
         ("Without {word}, the list {list} is {response}.", "If you take {word} out of {list}, {response} remains.",
          "Remove {word} from {list} and you have {response}.")),
    Task("list_position", FAMILY, _position,
         ("At which place is {word} in {list}?", "In {list}, which place has {word}?",
          "Give the position of {word} in the list {list}.", "{list}. Which position does {word} have?"),
         ("In {list} the word {word} is {response}.", "The position of {word} in the list {list} is {response}.")),
    Task("list_after", FAMILY, _neighbour(1),
         ("Which word comes after {word} in {list}?", "In {list}, what follows {word}?",
          "Name the word right after {word}: {list}.", "{list}. What stands just after {word}?"),
         ("In {list} the word after {word} is {response}.", "{list}: {response} follows {word}.")),
    Task("list_before", FAMILY, _neighbour(-1),
         ("Which word comes before {word} in {list}?", "In {list}, what stands before {word}?",
          "Name the word right before {word}: {list}.", "{list}. What stands just before {word}?"),
         ("In {list} the word before {word} is {response}.", "{list}: {response} stands before {word}.")),
    Task("list_repeated", FAMILY, _repeated,
         ("Which word appears twice in {list}?", "Find the repeated word: {list}.",
          "What word is there twice in {list}?",
          "One word of {list} comes twice. Which one?"),
         ("In {list} the word {response} appears twice.", "The repeated word of {list} is {response}.")),
    Task("list_contains", FAMILY, _contains,
         ("Is {word} in the list {list}?", "Does {list} contain {word}?", "Say yes or no: {word} is one of {list}.",
          "Here is a list: {list}. Can you find {word} in it?"),
         ("Is {word} among {list}? The guide says {response}.", "Whether {list} contains {word}: {response}.")),
    Task("list_add_front", FAMILY, _append(True),
         ("Put {word} at the front of {list}.", "Add {word} to the start of the list {list}.",
          "Write {list} with {word} before it.", "Let {word} be the first word, then {list}."),
         ("With {word} at the front, {list} becomes {response}.",
          "Adding {word} to the start of {list} gives {response}.")),
    Task("list_add_end", FAMILY, _append(False),
         ("Put {word} at the end of {list}.", "Add {word} to the end of the list {list}.",
          "Write {list} with {word} after it.", "Let {word} be the last word, after {list}."),
         ("With {word} at the end, {list} becomes {response}.",
          "Adding {word} to the end of {list} gives {response}.")),
)  # fmt: skip
