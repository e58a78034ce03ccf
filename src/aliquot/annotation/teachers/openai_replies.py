"""Interprets the answers of servers that speak OpenAI's protocol, more or less; nothing is taken for granted."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

from aliquot.annotation.teachers.event_stream import body_of
from aliquot.annotation.teachers.ledger import CONTENT_FILTER, REFUSAL, UNREADABLE
from aliquot.annotation.teachers.reasoning import with_reasoning
from aliquot.annotation.teachers.request_queue import Again, Refused, Unreadable

if TYPE_CHECKING:
    from openai import APIStatusError

#: The environment variable that holds the key.
KEY = "OPENAI_API_KEY"
_LONGEST_REASON = 200
#: Status codes of transient errors, in addition to 500 and above.
_TRANSIENT = (408, 409, 425, 429)
#: Status codes that concern one request, not every request.
_OF_REQUEST = (400, 413, 422)
#: Server codes for a prompt refused because of its content, and for one that is too long.
_FILTERED = ("content_filter", "content_policy_violation")
_TOO_LONG = ("context_length_exceeded", "string_above_max_length")
#: Server codes for exhausted credit: waiting does not help.
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
#: Message fields in which servers send reasoning separately.
_REASONING = ("reasoning_content", "reasoning")
#: Names of the prompt and response token counts on different servers.
_USAGE = (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens"))


@dataclass(frozen=True)
class Completion:
    """A server's answer to a prompt.

    Args:
        response: the text, also of a refusal, with its reasoning in tags; the whole body if the answer cannot be read.
        ending: the reason why it ends.
        tokens: of the prompt and of the response, or None if the server reports none.
        model: the name that the server reports, or None.
    """

    response: str
    ending: str
    tokens: tuple[int, int] | None
    model: str | None


def read_answer(text: str) -> Completion:
    """Read the body of an answer; an unreadable one is kept whole if it says what it cost.

    Raises:
        Unreadable: it cannot be read, and does not say what it cost.
        Again, Refused, ValueError: the body holds an error, as for `read_error`.
    """
    body: Any = None
    try:
        body = body_of(text)
        if (failed := _error_in(body)) is not None:
            return _judge(*failed)
        return read_body(body)
    except _NoRequest:
        raise
    except (Again, Refused, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        tokens = _tokens(body.get("usage")) if isinstance(body, dict) else None
        if tokens and sum(tokens):
            return Completion(whole(text), UNREADABLE, tokens, None)
        if isinstance(error, Again | Refused):
            raise
        raise Unreadable("an answer that cannot be read") from None


def read_body(body: Any) -> Completion:
    """Read a parsed answer; if it is malformed, any exception may be raised."""
    choice, model = body["choices"][0], body.get("model")
    message, ending = choice["message"], str(choice.get("finish_reason"))
    response, refusal = _texts(message.get("content")), message.get("refusal")
    if refusal:
        response, ending = _texts(refusal), REFUSAL
    elif _is_refusal(message.get("content")):
        ending = REFUSAL
    for name in _REASONING:
        if isinstance(apart := message.get(name), str):
            response = with_reasoning(apart, response)
            break
    return Completion(
        whole(response), whole(ending), _tokens(body.get("usage")), whole(model) if isinstance(model, str) else None
    )


def _texts(content: Any) -> str:
    """Return the text of a message, whose content is a text, absent, or in parts.

    Raises:
        TypeError: the content has parts, and none of them is a text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, dict):
        content = [content]
    parts = [_part(part) for part in content]
    if parts and all(part is None for part in parts):
        raise TypeError("no text")
    return "".join(part for part in parts if part)


def _part(part: Any) -> str | None:
    """Return the text of a part, reasoning in tags, or None if it is something else."""
    if isinstance(part, str):
        return part
    kind = part.get("type", "text")
    if kind in ("thinking", "reasoning"):
        return with_reasoning(_texts(part.get(kind) or part.get("text") or part.get("summary")), "")
    if kind not in ("text", "output_text", "refusal"):
        return None
    text = part.get("refusal") if kind == "refusal" else part.get("text")
    return _texts(text.get("value") if isinstance(text, dict) else text)


def _is_refusal(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, dict) and cast(dict[str, object], part).get("type") == "refusal"
        for part in cast(list[object], content)
    )


def _error_in(body: Any) -> tuple[int | None, str, str] | None:
    """Return status, code and text of an error sent as an answer, or None if it is not an error."""
    choice = body["choices"][0] if body.get("choices") else {}
    error = body.get("error") or choice.get("error") or (body if body.get("object") == "error" else None)
    if not error:
        if choice.get("finish_reason") != "error":
            return None
        error = "the answer broke off with an error"
    if not isinstance(error, dict):
        return None, "", without_key(str(error))
    told = cast("dict[str, Any]", error)
    code = str(told.get("code") or told.get("status") or told.get("type") or "")
    status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else None
    said = str(told.get("message") or json.dumps(told))
    return status, code, without_key(said if status is None else f"{status} {said}").rstrip(".")


def _tokens(usage: Any) -> tuple[int, int] | None:
    for names in _USAGE:
        try:
            num_in, num_out = (int(usage[name]) for name in names)
        except (ValueError, LookupError, TypeError, OverflowError):
            continue
        return (num_in, num_out) if num_in >= 0 and num_out >= 0 else None
    return None


def read_error(error: APIStatusError) -> Completion:
    """Return the answer if the error is how the server refuses a prompt because of its content.

    Raises:
        Again: the error is transient.
        Refused: the error concerns this request.
        ValueError: the error concerns every request.
    """
    seconds = _seconds_to_wait(error.response.headers)
    return _judge(error.status_code, error.code or error.type or "", reason_of(error), seconds)


def _judge(status: int | None, code: str, reason: str, seconds: float | None = None) -> Completion:
    if code in _FILTERED:
        return Completion("", CONTENT_FILTER, (0, 0), None)
    if status in _OF_REQUEST or code in _TOO_LONG:
        raise Refused(reason, for_prompt=code in _TOO_LONG) from None
    if (status is None or status in _TRANSIENT or status >= 500) and code not in _NO_MONEY:
        raise Again(reason, seconds) from None
    raise _NoRequest(
        f"the server accepts no requests: {reason}. What was answered is kept: correct this ({KEY}, OPENAI_BASE_URL, "
        "the name of the model, the account), and repeat the command to resume"
    ) from None


class _NoRequest(ValueError):
    """The server accepts no request at all."""


def reason_of(error: APIStatusError) -> str:
    """Say in one line what the server answered."""
    body: Any = error.body
    said = body.get("message") if isinstance(body, dict) else body if isinstance(body, str) else None
    said = said or error.message.removeprefix(f"Error code: {error.status_code}").removeprefix(" - ")
    return without_key(f"{error.status_code} {said}").rstrip(".")


def without_key(text: str) -> str:
    """Shorten a text to one line, and hide the key, which some servers repeat."""
    line = " ".join(whole(text).replace(os.environ.get(KEY) or "\0", "***").split())
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


def whole(text: str) -> str:
    """Join surrogate pairs, and replace a lone surrogate by the replacement character: files cannot store it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return how long the server asks to wait, given in seconds or as a date."""
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
    """Return the models in a server's list; empty if the list cannot be read."""
    try:
        return [str(model["id"]) for model in json.loads(text)["data"]]
    except (ValueError, LookupError, TypeError):
        return []
