"""How a config names a judge, what it is asked, and how its verdict is read.

Pairwise comparison in both orders follows MT-Bench (Zheng et al. 2023): judges prefer the answer that they read first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from aliquot.annotation.teachers.endpoint import EndpointTeacher
from aliquot.evaluation.held_out.source import HeldOutSource
from aliquot.pools.conversation import as_text
from aliquot.store.content import locate

#: The name of the score: the share of comparisons that the finetuned model wins, a tie being half a win.
WIN_RATE = "win_rate"
#: The other model that a finetuned one is compared with unless a run is named.
BASE = "base"
#: A file of this package, so that the judge's prompt can be read and replaced.
PROMPT = "pkg://aliquot.evaluation/judge/prompt.txt"
_SLOTS = ("{prompt}", "{a}", "{b}")
_VERDICT = re.compile(r"\[\[\s*(A|B|tie)\s*\]\]\W*$", re.IGNORECASE)
_BYTES = 4  # of a token, roughly
#: What a verdict is worth to answer A.
_WORTH = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True, kw_only=True)
class JudgeModel(EndpointTeacher):
    """The model that compares, asked like a teacher: every reply is kept in a ledger and paid for once."""

    setting: ClassVar[str] = "evaluate.judge"
    activity: ClassVar[str] = "judge"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples:
            raise ValueError(
                f"{self.setting}.examples={self.examples}: a judge is asked about each pair alone; leave examples out"
            )


@dataclass(frozen=True)
class Judge(HeldOutSource):
    """Names held-out prompts, whose responses by two models a judge compares; the rows need no responses.

    Args:
        against: the other model: `base`, or the id of a run that was evaluated on the same rows.
        prompt_file: the text that asks the judge, with {prompt}, {a} and {b}; it has to end in [[A]], [[B]] or [[tie]].
        judge: the model that compares, on any server that speaks OpenAI's protocol.
    """

    max_new_tokens: int | None = 256
    against: str = BASE
    prompt_file: str = PROMPT
    judge: JudgeModel = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_new_tokens is None:
            raise ValueError("evaluate.max_new_tokens=null: a judge's rows have no responses to go by; give a number")

    @property
    def tasks(self) -> Sequence[str]:
        return [WIN_RATE]

    def identity(self) -> dict[str, object]:
        """Identify the judge's prompt by its text; the stage names the opponent."""
        fields = {name: value for name, value in super().identity().items() if name != "against"}
        return {**fields, "prompt_file": self.template()}

    def of_responses(self) -> dict[str, object]:
        """Identify what a model is asked, without what a judge is asked."""
        return {name: value for name, value in self.identity().items() if name not in ("judge", "prompt_file")}

    def template(self) -> str:
        """Return the text that asks the judge.

        Raises:
            ValueError: there is no such file, or it does not say where request and answers go.
        """
        file = locate(self.prompt_file)
        if not file.is_file():
            raise ValueError(f"evaluate.prompt_file={self.prompt_file}: {file} is not a file; give one with text")
        text = _text_of(file)
        if missing := [slot for slot in _SLOTS if slot not in text]:
            raise ValueError(
                f"evaluate.prompt_file={self.prompt_file} lacks {', '.join(missing)}; put {', '.join(_SLOTS)} where "
                "the request and the two answers go"
            )
        return text

    def check(self) -> None:
        """Raise ValueError if a row, or the text that asks the judge, cannot be used."""
        super().check()
        self.template()

    def longest_questions(self) -> list[str]:
        """Return one question per row, with the longest possible responses; each row is asked about twice."""
        template, longest = self.template(), " " * _BYTES * (self.max_new_tokens or 0)
        return [fill(template, prompt, longest, longest) for prompt in self.questions()[: self.limit]]


def fill(template: str, prompt: str, a: str, b: str) -> str:
    """Return the text that asks for a comparison; what a model wrote cannot stand for a slot."""
    filled = {"{prompt}": as_text(prompt), "{a}": a, "{b}": b}
    return re.sub("|".join(map(re.escape, _SLOTS)), lambda slot: filled[slot[0]], template)


@dataclass(frozen=True)
class Opponent:
    """The other model of a comparison.

    Args:
        rows: the file with its responses.
        ledger: the folder with the judge's replies.
    """

    rows: Path
    ledger: Path


def worth_to_a(said: str) -> float | None:
    """Return what a judge's reply is worth to answer A: 1, 0, or 0.5 for a tie; None unless it ends in a verdict."""
    found = _VERDICT.search(said)
    return _WORTH[found[1].lower()] if found else None


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"evaluate.prompt_file={file} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
