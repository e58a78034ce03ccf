"""Where reasoning ends and the response begins."""

import pytest

from aliquot.annotation.teachers.reasoning import with_reasoning, without_reasoning


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ("<think>\nHm.\n</think>\n\nLima", "Lima"),
        ("<think></think>Lima\n", "Lima"),
        ("Hm. Lima?\n</think>\n\nLima", "Lima"),
        ("<think>\nHm.", ""),
        ("<think>", ""),
        ("Lima.\n<think>Or", "Lima."),
        ("<think>a</think>Li<think>b</think>ma", "Lima"),
        ('<think>It says "Lima"</think>Lima', "Lima"),
        ("<think>I close it by `</think>` later</think>Lima", "Lima"),
        ("<think>a <think>b</think> c</think>Lima", "Lima"),
        ("[THINK]Hm.[/THINK]Lima", "Lima"),
        ("<THINK>Hm.</Think>Lima", "Lima"),
        ("◁think▷Hm.◁/think▷Lima", "Lima"),
        ("<thinking>Hm.</thinking>Lima", "Lima"),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Lima<|return|>", "Lima"),
        ("<|start|>assistant<|channel|>final<|message|>Lima", "Lima"),
        ('<|channel|>analysis<|message|>Hm<|end|><|channel|>final <|constrain|>json<|message|>{"a": 1}', '{"a": 1}'),
        ("<|channel|>analysis<|message|>Hm. Li", ""),
        ("<|channel|>commentary to=functions.f<|message|>{}<|call|>", ""),
        ("analysisHm. Short.assistantfinalLima", "Lima"),
    ],
)
def test_what_is_reasoning_goes_and_what_is_not_stays(text, response):
    assert without_reasoning(text) == response


@pytest.mark.parametrize(
    "text",
    [
        "",
        " Lima\n",
        "Write `<think>` and '</think>'.",
        "The tag <think> is opened.",
        "I think </b>",
        "analysis of finals",
        "What does <|channel|>final<|message|> mean?",
    ],
)
def test_a_response_without_reasoning_stays_as_it_is(text):
    assert without_reasoning(text) == text


@pytest.mark.parametrize("reasoning", ["Hm.", "", "I open <think> and close `</think>`", "a</think>b"])
def test_reasoning_that_was_put_before_a_response_comes_off_again(reasoning):
    assert without_reasoning(with_reasoning(reasoning, "Lima")) == "Lima"
