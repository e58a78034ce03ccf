"""The world itself: its size, its hold-out and the truth of what its tasks answer."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from aliquot.demo.families import BY_NAME, TASKS
from aliquot.demo.words import held_out, seeded
from aliquot.demo.world import ATTRIBUTES, ENTITIES, HELD_OUT, facts, subjects


def test_subjects_and_names() -> None:
    names = [entity for subject in subjects() for entity in subject.entities]
    assert len(subjects()) == 57 and len({subject.noun for subject in subjects()}) == 57
    assert len(names) == len(set(names)) == 57 * ENTITIES


def test_hold_out_is_even() -> None:
    hidden = Counter((fact.subject, fact.attribute) for fact in facts() if fact.held_out)
    assert set(hidden.values()) == {HELD_OUT} and len(hidden) == 57 * 3


def test_values_are_spread() -> None:
    for (subject, name), count in Counter((f.subject, f.attribute) for f in facts()).items():
        values = Counter(f.value for f in facts() if (f.subject, f.attribute) == (subject, name))
        assert count == ENTITIES and set(values) == set(ATTRIBUTES[name].values)
        assert max(values.values()) - min(values.values()) <= 1


def test_seeds_do_not_depend_on_the_process() -> None:
    assert seeded("a", 1).random() == seeded("a", 1).random() != seeded("a", 2).random()
    assert held_out("add 3 14") is held_out("add 3 14")
    assert 0.10 < sum(held_out(f"key {i}") for i in range(4000)) / 4000 < 0.15


def test_tasks_are_many_and_well_worded() -> None:
    assert len(TASKS) >= 200 and len(BY_NAME) == len(TASKS)
    assert len({task.family for task in TASKS}) >= 12
    for task in TASKS:
        item = task.draw(Random(1))
        texts = {task.ask(item, i) for i in range(len(task.prompts))}
        assert len(texts) >= 4, task.name
        assert all("{" not in text and "\n" not in text for text in texts)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


ARITHMETIC = {
    "add_two_digit": lambda n: n[0] + n[1],
    "add_three": sum,
    "multiply": lambda n: n[0] * n[1],
    "round_ten": lambda n: 10 * ((n[0] + 5) // 10),
    "largest": max,
    "smallest": min,
    "middle": lambda n: sorted(n)[1],
    "count_total": sum,
    "sequence_step": lambda n: 2 * n[-1] - n[-2],
}


@pytest.mark.parametrize("name", sorted(ARITHMETIC))
def test_numbers_by_another_road(name: str) -> None:
    """Read the numbers back from the words of the prompt and reckon again."""
    task, rng = BY_NAME[name], Random(5)
    for _ in range(200):
        item = task.draw(rng)
        assert int(item.response) == ARITHMETIC[name](_numbers(task.ask(item, 0)))


@pytest.mark.parametrize("name", ["sort_words", "sort_numbers", "sort_descending", "sort_words_back"])
def test_sorted_by_another_road(name: str) -> None:
    task, rng = BY_NAME[name], Random(6)
    for _ in range(200):
        item = task.draw(rng)
        given, answer = item.slots["list"].split(", "), item.response.split(", ")
        key = int if given[0].isdigit() else str
        assert answer == sorted(given, key=key, reverse=name in ("sort_descending", "sort_words_back"))


def test_liars_by_trying_every_world() -> None:
    """Of all eight assignments of honesty, exactly those that fit the story must agree on the answer."""
    task, rng = BY_NAME["logic_liars"], Random(7)
    for _ in range(200):
        item = task.draw(rng)
        lines = [line for line in item.slots["story"].split(".") if line]
        people = [line.split()[0] for line in lines]
        answers = set[bool]()
        for code in range(8):
            honest = {who: bool(code >> i & 1) for i, who in enumerate(people)}
            fits = honest[people[0]] is ("tells" in lines[0])
            for line in lines[1:]:
                who, _, about, *claim = line.split()
                fits = fits and (honest[about] is (claim[0] == "tells")) is honest[who]
            if fits:
                answers.add(honest[item.slots["who"]])
        assert answers == {item.response == "yes"}


def test_truth_values_by_python() -> None:
    task, rng = BY_NAME["logic_truth"], Random(8)
    for _ in range(200):
        item = task.draw(rng)
        text = item.slots["text"].replace("true", "True").replace("false", "False")
        assert str(eval(text)).lower() == item.response


def test_facts_answer_what_the_world_says() -> None:
    """Every open question about an entity gets the value of that very fact."""
    values = {(fact.entity, fact.attribute): fact.value for fact in facts()}
    rng = Random(9)
    for task in TASKS:
        if task.family == "facts":
            item = task.draw(rng)
            _, entity, attribute = item.key.split()
            assert values[entity, attribute] == item.response
            assert entity in task.ask(item, 0)
