"""What servers mean by their answers that speak OpenAI's protocol, more or less; nothing is taken for granted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from aliquot.annotators.asking import Again, Refused
from aliquot.annotators.ledger import CONTENT_FILTER, REFUSAL

if TYPE_CHECKING:
    from openai import APIStatusError

#: The variable of the environment that holds the key.
KEY = "OPENAI_API_KEY"
_LONGEST_REASON = 200
#: Errors that may pass, beside those from 500 on.
_TRANSIENT = (408, 409, 425, 429)
#: Errors of this request, not of every request.
_OF_REQUEST = (400, 413, 422)
#: What servers call a prompt that they refuse for what it says, and one that is too long.
_FILTERED = ("content_filter", "content_policy_violation")
_TOO_LONG = ("context_length_exceeded", "string_above_max_length")
#: What servers call money that is used up: waiting brings none.
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")


@dataclass(frozen=True)
class Answer:
    """What a server says to a prompt.

    Args:
        response: the text, also of a refusal.
        ending: why it ends.
        tokens: of the prompt and of the response, or None where the server tells none.
        model: as the server calls it, or None.
    """

    response: str
    ending: str
    tokens: tuple[int, int] | None
    model: str | None


def read_answer(text: str) -> Answer:
    """Read the body of an answer.

    Raises:
        Again: it cannot be read.
    """
    try:
        body = json.loads(text)
        choice, model = body["choices"][0], body.get("model")
        message, ending = choice["message"], str(choice.get("finish_reason"))
        response, refusal = message.get("content") or "", message.get("refusal")
        if refusal:
            response, ending = refusal, REFUSAL
        if not isinstance(response, str):
            raise TypeError(response)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Again("an answer that cannot be read") from None
    return Answer(response, ending, _tokens(body.get("usage")), model if isinstance(model, str) else None)


def _tokens(usage: Any) -> tuple[int, int] | None:
    try:
        return int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (ValueError, LookupError, TypeError):
        return None


def read_error(error: APIStatusError) -> Answer:
    """Return the answer where an error is the way to refuse a prompt for what it says.

    Raises:
        Again: the error may pass.
        Refused: it is of this request.
        ValueError: it is of every request.
    """
    code, status, reason = error.code or "", error.status_code, reason_of(error)
    if code in _FILTERED:
        return Answer("", CONTENT_FILTER, (0, 0), None)
    if status in _OF_REQUEST:
        raise Refused(reason, for_prompt=code in _TOO_LONG) from None
    if (status in _TRANSIENT or status >= 500) and code not in _NO_MONEY:
        raise Again(reason, _seconds_to_wait(error.response.headers)) from None
    raise ValueError(
        f"the server takes no request: {reason}. What was answered is kept: put it right ({KEY}, OPENAI_BASE_URL, "
        "annotator.model, the account), and the same command goes on"
    ) from None


def reason_of(error: APIStatusError) -> str:
    """Say in one line what the server answered."""
    body: Any = error.body
    said = body.get("message") if isinstance(body, dict) else None
    said = said or error.message.removeprefix(f"Error code: {error.status_code}").removeprefix(" - ")
    return without_key(f"{error.status_code} {said}").rstrip(".")


def without_key(text: str) -> str:
    """Shorten a text to a line, and hide the key, which some servers repeat."""
    line = " ".join(text.replace(os.environ.get(KEY) or "\0", "***").split())
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


def _seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return how long the server asks to wait: seconds, or until a date."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def model_names(text: str) -> list[str]:
    """Return the models in a server's list; none where it cannot be read."""
    try:
        return [str(model["id"]) for model in json.loads(text)["data"]]
    except (ValueError, LookupError, TypeError):
        return []
