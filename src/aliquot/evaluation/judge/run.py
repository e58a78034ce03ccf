"""Let a judge compare two models' responses: each pair in both orders, every reply kept and paid for once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aliquot.annotation.teachers.ledger import Question
from aliquot.evaluation.held_out.run import ROWS_FILE, Measured, shards_of
from aliquot.evaluation.held_out.source import HeldOutRows
from aliquot.evaluation.judge.spec import Judge, Opponent, fill, worth_to_a
from aliquot.models.spec import Model
from aliquot.pools.conversation import as_text
from aliquot.store.store import write_atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

TIE = 0.5
_RESPONSES = "responses.json"
_ORDERS = ("first", "second")  # the place of our response
#: A judge whose replies have no clear verdict more often than this does not do what it is asked.
_MOST_UNREADABLE = 0.5
_SHOWN = 80  # characters of a reply in an error


@dataclass(frozen=True)
class JudgedPair:
    """What a judge says of one row.

    Args:
        ours: our response.
        theirs: the other one.
        replies: the judge's two replies, ours read first and second; empty where both responses are equal.
    """

    ours: str
    theirs: str
    replies: Sequence[str] = ()

    @property
    def verdicts(self) -> list[float | None]:
        """What each reply is worth to us: 1, 0, 0.5 for a tie; None if it cannot be read."""
        worth = [worth_to_a(said) for said in self.replies]
        return [*worth[:1], *(None if each is None else 1 - each for each in worth[1:])]

    @property
    def value(self) -> float:
        """The mean over both orders; equal responses, and verdicts that cannot be read, are ties."""
        worth = [TIE if verdict is None else verdict for verdict in self.verdicts]
        return sum(worth) / len(worth) if worth else TIE

    @property
    def contradicts(self) -> bool:
        """Whether the judge prefers one place, not one response."""
        return sorted(v for v in self.verdicts if v is not None) == [0.0, 1.0]


def judge(
    model: Model,
    open_network: Callable[[], PreTrainedModel],
    spec: Judge,
    rows: HeldOutRows,
    opponent: Opponent | None,
    directory: Path,
) -> tuple[Measured, dict[str, int]]:
    """Let a model respond, and a judge compare its responses with an opponent's; write `rows.jsonl`.

    Returns:
        The share that the model wins, row by row, and counts to be recorded.
    """
    responses = _respond(model, open_network, spec, rows, directory)
    if opponent is None:
        comparisons = [JudgedPair(said, said) for said in responses]
    else:
        theirs = read_responses(opponent.rows, rows)
        comparisons = compare_responses(spec, rows, responses, theirs, opponent.ledger)
    counts = summary(comparisons)
    if opponent is not None:
        log.info(
            "judge: %d of %d pairs of responses differ; %d verdicts contradict themselves, %d of %d replies have none",
            *(len(rows) - counts["num_equal"], len(rows), counts["num_contradictory"]),
            *(counts["num_unreadable"], counts["num_asked"]),
        )
    write_rows(rows, comparisons, directory / ROWS_FILE)
    return Measured([each.value for each in comparisons], rows.tasks), counts


def _respond(
    model: Model, open_network: Callable[[], PreTrainedModel], spec: Judge, rows: HeldOutRows, directory: Path
) -> Sequence[str]:
    """Return the model's responses; they are kept, so a judge that fails costs no second generation."""
    from aliquot.evaluation.held_out.answers import answer

    file = directory / _RESPONSES
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    responses = answer(model, open_network(), spec, rows, shards_of(directory)).responses
    write_atomic(file, json.dumps(list(responses), ensure_ascii=False) + "\n")
    return responses


def compare_responses(
    spec: Judge, rows: HeldOutRows, ours: Sequence[str], theirs: Sequence[str], ledger: Path
) -> list[JudgedPair]:
    """Have every pair of responses compared in both orders; equal responses are not sent.

    Raises:
        ValueError: a comparison got no reply, or most replies have no clear verdict.
    """
    pairs = list(zip(ours, theirs, strict=True))
    asked = [i for i, (mine, other) in enumerate(pairs) if mine.split() != other.split()]
    template = spec.template()
    questions = {
        (i, order): Question(
            f"{rows.ids[i]}, ours {order}", fill(template, rows.prompts[i], *_ordered(order, pairs[i]))
        )
        for i in asked
        for order in _ORDERS
    }
    book, missing, failed = spec.judge.ask_all(list(questions.values()), ledger)
    if missing:
        raise ValueError(spec.judge.what_failed(missing, len(questions), failed))
    read = {at: spec.judge.read(book.replies[question.key]) for at, question in questions.items()}
    replies = {at: "" if reply.flaw(keep_cut=False) else reply.response for at, reply in read.items()}
    _check_readable(spec, list(replies.values()))
    return [
        JudgedPair(mine, other, [replies[i, order] for order in _ORDERS if (i, order) in replies])
        for i, (mine, other) in enumerate(pairs)
    ]


def _ordered(order: str, pair: tuple[str, str]) -> tuple[str, str]:
    ours, theirs = pair
    return (ours, theirs) if order == _ORDERS[0] else (theirs, ours)


def _check_readable(spec: Judge, replies: Sequence[str]) -> None:
    unclear = [said for said in replies if worth_to_a(said) is None]
    if len(unclear) > _MOST_UNREADABLE * len(replies):
        raise ValueError(
            f"{len(unclear):,} of {len(replies):,} replies of the judge {spec.judge.model} have no clear verdict, such "
            f"as {' '.join(unclear[0].split())[:_SHOWN]!r}; each has to end in [[A]], [[B]] or [[tie]]: take another "
            "evaluate.judge.model, raise evaluate.judge.max_tokens, or say it more clearly in evaluate.prompt_file"
        )


def summary(comparisons: Sequence[JudgedPair]) -> dict[str, int]:
    """Count how the comparisons went."""
    verdicts = [verdict for each in comparisons for verdict in each.verdicts]
    return {
        "num_equal": sum(not each.replies for each in comparisons),
        "num_contradictory": sum(each.contradicts for each in comparisons),
        "num_unreadable": sum(verdict is None for verdict in verdicts),
        "num_asked": len(verdicts),
    }


def write_rows(rows: HeldOutRows, comparisons: Sequence[JudgedPair], path: Path) -> None:
    """Write one line per row: both responses, the judge's replies and what they are worth."""
    write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(rows, comparisons)))


def _lines(rows: HeldOutRows, comparisons: Sequence[JudgedPair]) -> Iterator[Mapping[str, object]]:
    for i, each in enumerate(comparisons):
        yield {
            "id": rows.ids[i],
            "task": rows.tasks[i] if rows.tasks else None,
            "prompt": as_text(rows.prompts[i]),
            "response": each.ours,
            "against": each.theirs,
            "win_rate": each.value,
            "verdicts": each.verdicts,
            "replies": list(each.replies),
        }


def read_responses(path: Path, rows: HeldOutRows) -> list[str]:
    """Return the responses of another evaluation to the same rows.

    Raises:
        ValueError: it has others, or none.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    except FileNotFoundError:
        raise ValueError(
            f"evaluate.against: {path} is not there, so that run answered no held-out rows; name one that was "
            "evaluated with evaluate=judge on the same rows"
        ) from None
    if any("response" not in line for line in lines):
        raise ValueError(
            f"evaluate.against: {path} has no responses, since its measures needed none; evaluate that run with "
            "evaluate=judge"
        )
    if [(line["id"], line["prompt"]) for line in lines] != [*zip(rows.ids, map(as_text, rows.prompts), strict=True)]:
        raise ValueError(
            f"evaluate.against: {path} has responses to {len(lines):,} rows, which are not these {len(rows):,}; "
            "compare runs on the same rows"
        )
    return [line["response"] for line in lines]
