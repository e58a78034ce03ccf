"""Letters, spelling and the shape of words."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aliquot.demo.families.base import Item, Task
from aliquot.demo.words import NOUNS, PEOPLE, comma

FAMILY = "strings"


def _word(kind: str, answer: Callable[[str], str]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        word = rng.choice(NOUNS)
        return Item(f"{kind} {word}", answer(word), {"word": word, "spelled": " ".join(word)})

    return draw


def _letters(kind: str, size: int, answer: Callable[[list[str]], list[str]]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        letters = rng.sample("abcdefghijklmnopqrstuvwxyz", size)
        return Item(f"{kind} {' '.join(letters)}", " ".join(answer(letters)), {"list": " ".join(letters)})

    return draw


def _starts(rng: Random) -> Item:
    word, other = rng.sample(NOUNS, 2)
    letter = rng.choice((word[0], other[0]))
    return Item(f"starts {word} {letter}", "yes" if word[0] == letter else "no", {"word": word, "letter": letter})


def _pair(kind: str, answer: Callable[[str, str], str]) -> Callable[[Random], Item]:
    def draw(rng: Random) -> Item:
        one, two = rng.sample(NOUNS, 2)
        return Item(f"{kind} {one} {two}", answer(one, two), {"one": one, "two": two})

    return draw


def _initials(rng: Random) -> Item:
    one, two = rng.sample(PEOPLE, 2)
    return Item(f"initials {one} {two}", f"{one[0]} {two[0]}", {"one": one, "two": two})


def _repeat(rng: Random) -> Item:
    word, times = rng.choice(NOUNS), rng.choice((2, 3, 4))
    number = {2: "twice", 3: "three times", 4: "four times"}[times]
    return Item(f"repeat {word} {times}", " ".join([word] * times), {"word": word, "times": number})


TASKS = (
    Task("first_letter", FAMILY, _word("first letter", lambda word: word[0]),
         ("What is the first letter of {word}?", "With which letter does {word} begin?",
          "Give the first letter of {word}.",
          "Name the letter at the start of the word {word}."),
         ("The first letter of {word} is {response}.", "The word {word} begins with the letter {response}.")),
    Task("last_letter", FAMILY, _word("last letter", lambda word: word[-1]),
         ("What is the last letter of {word}?", "With which letter does {word} end?",
          "Give the last letter of {word}.",
          "Name the letter at the end of the word {word}."),
         ("The last letter of {word} is {response}.", "The word {word} ends with the letter {response}.")),
    Task("spell", FAMILY, _word("spell", " ".join),
         ("Spell the word {word}.", "Write the letters of {word} one by one.", "How do you spell {word}?",
          "Put a space between the letters of {word}."),
         ("The word {word} is spelled {response}.", "The letters of {word} one by one are {response}.")),
    Task("unspell", FAMILY, _word("unspell", lambda word: word),
         ("Which word do the letters {spelled} make?", "Join the letters {spelled} to a word.",
          "What does {spelled} spell?",
          "Read these letters as one word: {spelled}."),
         ("The letters {spelled} make the word {response}.", "{spelled} spells {response}.")),
    Task("upper", FAMILY, _word("upper", str.upper),
         ("Write {word} in capital letters.", "Put the word {word} in capitals.", "What is {word} in upper case?",
          "Change {word} to upper case."),
         ("In capital letters, {word} is {response}.", "{word} in upper case is {response}.")),
    Task("capitalise", FAMILY, _word("capitalise", str.capitalize),
         ("Write {word} with a capital first letter.", "Capitalise the word {word}.", "Begin {word} with a capital.",
          "How does {word} look at the start of a sentence?"),
         ("With a capital first letter, {word} is {response}.",
          "At the start of a sentence, {word} becomes {response}.")),
    Task("backwards", FAMILY, _word("backwards", lambda word: " ".join(word[::-1])),
         ("Spell {word} backwards.", "Write the letters of {word} from last to first.",
          "How is {word} spelled in reverse?",
          "Give the letters of {word} in reverse order."),
         ("Spelled backwards, {word} is {response}.", "In reverse order the letters of {word} are {response}.")),
    Task("reverse_letters", FAMILY, _letters("reverse letters", 4, lambda letters: letters[::-1]),
         ("Reverse the letters {list}.", "Write {list} backwards.", "Turn the row of letters {list} around.",
          "What is {list} in reverse?"),
         ("The letters {list} in reverse are {response}.", "Backwards, the row {list} reads {response}.")),
    Task("sort_letters", FAMILY, _letters("sort letters", 4, sorted),
         ("Sort the letters {list}.", "Put the letters {list} in alphabetical order.",
          "Order {list} by the alphabet.",
          "Arrange these letters from A to Z: {list}."),
         ("Sorted, the letters {list} are {response}.", "By the alphabet, {list} is {response}.")),
    Task("last_of_letters", FAMILY, _letters("last of letters", 6, lambda letters: letters[-1:]),
         ("What is the last of the letters {list}?", "Give the final letter of {list}.",
          "Which letter ends the row {list}?",
          "Name the last one: {list}."),
         ("The last of the letters {list} is {response}.", "The row {list} ends with {response}.")),
    Task("starts_with", FAMILY, _starts,
         ("Does {word} begin with the letter {letter}?", "Is {letter} the first letter of {word}?",
          "Say yes or no: {word} starts with {letter}.", "Check whether the word {word} starts with {letter}."),
         ("Does {word} begin with {letter}? The guide says {response}.",
          "Whether the word {word} starts with {letter}: {response}.")),
    Task("same_start", FAMILY, _pair("same start", lambda a, b: "yes" if a[0] == b[0] else "no"),
         ("Do {one} and {two} begin with the same letter?", "Is the first letter of {one} also that of {two}?",
          "Say yes or no: {one} and {two} start alike.", "Check whether {one} and {two} share their first letter."),
         ("Do {one} and {two} begin with the same letter? The guide says {response}.",)),
    Task("longer_word", FAMILY, _pair("longer", lambda a, b: "same" if len(a) == len(b) else max(a, b, key=len)),
         ("Which word is longer, {one} or {two}? Say same if neither is.",
          "Name the longer word of {one} and {two}, or same.",
          "Compare the length of {one} and {two}. Which is longer, or are they the same?",
          "Which has more letters, {one} or {two}, or is it the same?"),
         ("Comparing the length of {one} and {two}, the longer is: {response}.",)),
    Task("initials", FAMILY, _initials,
         ("What are the initials of {one} {two}?", "Give the initials of {one} {two}.",
          "Write {one} {two} as initials.",
          "With which two letters does {one} {two} sign?"),
         ("The initials of {one} {two} are {response}.", "{one} {two} signs with {response}.")),
    Task("repeat_word", FAMILY, _repeat,
         ("Write the word {word} {times}.", "Say {word} {times}.", "Repeat {word} so that it stands there {times}.",
          "Copy the word {word} {times}."),
         ("The word {word} written {times} is {response}.", "Saying {word} {times} gives {response}.")),
    Task("join_words", FAMILY, _pair("join", lambda a, b: f"{a}-{b}"),
         ("Join {one} and {two} with a hyphen.", "Put a hyphen between {one} and {two}.",
          "Write {one} {two} with a hyphen.",
          "Make one hyphenated word of {one} and {two}."),
         ("Joined with a hyphen, {one} and {two} are {response}.",
          "A hyphen between {one} and {two} makes {response}.")),
    Task("swap_words", FAMILY, _pair("swap words", lambda a, b: comma([b, a])),
         ("Swap the two words {one}, {two}.", "Write {one} and {two} the other way round.",
          "Exchange {one} and {two}.",
          "Put {two} before {one}."),
         ("The other way round, {one} and {two} are {response}.", "Swapping {one} and {two} gives {response}.")),
)  # fmt: skip
