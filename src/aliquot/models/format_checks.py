"""Check that template, tokenizer and model fit together, before anything is read.

Examples of a bad fit: a tokenizer that was extended and a model that was not, a chat template that fails, or one that
writes a finished turn differently from how it opens one. Without these checks, each would end in a traceback after
hours, or in training on text that nobody asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from aliquot.config.quoting import setting
from aliquot.models.control_tokens import ControlTokens
from aliquot.models.hub import reason_of
from aliquot.models.template import CHAT, Encoding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROMPT, _RESPONSE = "Which letter comes after a?", "It is b."
_WRITE_ONE = r"""write a format, such as $'model.template="<|user|>\n{prompt}\n<|assistant|>\n{response}"'"""


def check_template(template: str) -> None:
    """Raise ValueError if a template cannot be filled in."""
    if template == CHAT:
        return
    if "{prompt}" not in template or not template.endswith("{response}"):
        raise ValueError(
            f"model.template={template!r} must contain {{prompt}} and end with {{response}}, for example "
            "'{prompt}\\nAnswer: {response}', or be the word chat for the tokenizer's own chat template"
        )
    if "\\n" in template:
        raise ValueError(
            f"model.template={template!r} holds a backslash and an n where a line break must be meant; "
            "write it in a yaml file between double quotes, or in a shell as $'model.template=\"...\\n...\"'"
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, template: str, path: str) -> None:
    """Raise ValueError if the tokenizer does not fit the template."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {path} has no end-of-sequence token, so no response could end; set eos_token "
            "in its tokenizer_config.json"
        )
    if template == CHAT:
        _check_chat(tokenizer, path)
    if not cast("list[int]", tokenizer("a b c", add_special_tokens=False)["input_ids"]):
        raise ValueError(
            f"the tokenizer of {path} turns no text into tokens: it has no vocabulary; add it with the "
            "tokenizer's save_pretrained"
        )
    begin = cast("str | None", tokenizer.bos_token)
    if begin and template.startswith(begin) and _adds_beginning(tokenizer):
        raise ValueError(
            f"model.template={template!r} begins with {begin}, which the tokenizer of {path} adds by itself; leave it "
            "out of the template"
        )


def no_chat_template(path: str) -> str:
    """Say what to do if a tokenizer has no chat template."""
    return f"model.template=chat, and the tokenizer of {path} has no chat template; base models have none: {_WRITE_ONE}"


def _check_chat(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Raise ValueError if the chat template cannot write one question and its answer as scoring and training do."""
    templates: object = tokenizer.chat_template
    if templates is None:
        raise ValueError(no_chat_template(path))
    if isinstance(templates, dict) and "default" not in templates:
        names = ", ".join(sorted(cast("dict[str, str]", templates)))
        raise ValueError(
            f"model.template=chat: the tokenizer of {path} has {len(templates)} chat templates ({names}), and none is "
            f"called default; call one of them so, or {_WRITE_ONE}"
        )
    try:
        before, whole = Encoding.turn(tokenizer, _PROMPT, _RESPONSE)
    except Exception as error:  # a template is a program and may raise anything
        raise ValueError(
            f"model.template=chat: the chat template of {path} fails on one question and its answer, "
            f"'{reason_of(error)}'; {_WRITE_ONE}"
        ) from error
    if _PROMPT not in before or _PROMPT not in whole or _RESPONSE not in whole:
        lost = "the question" if _PROMPT not in before or _PROMPT not in whole else "the answer"
        raise ValueError(
            f"model.template=chat: the chat template of {path} leaves out {lost} of a conversation of one question "
            f"and its answer; {_WRITE_ONE}"
        )


def check_finished_turn(tokenizer: PreTrainedTokenizerBase, template: str, path: str) -> None:
    """Raise ValueError if finetuning would learn responses after a turn that the chat template never finishes so.

    Reasoning models, such as DeepSeek-R1, open a thought that their finished turns do not have. A teacher may be such a
    model: it only writes.
    """
    if template != CHAT:
        return
    before, whole = Encoding.turn(tokenizer, _PROMPT, _RESPONSE)
    if not whole.startswith(before.rstrip()):
        opened, finished = _differing(before, whole)
        raise ValueError(
            f"model.template=chat: the chat template of {path} opens the response with {opened!r} where a finished "
            f"turn has {finished!r}, so responses would be trained after an unclosed turn; write the finished "
            f"turn as the format: {_as_format(tokenizer, whole)}"
        )


def _differing(before: str, whole: str) -> tuple[str, str]:
    """Return how two texts continue from their first difference, a few words each."""
    at = next(i for i, letter in enumerate(before) if whole[i : i + 1] != letter)
    return before[at : at + 40], whole[at : at + 20]


def _as_format(tokenizer: PreTrainedTokenizerBase, whole: str) -> str:
    r"""Return a filled-in conversation as a `model.template` for the command line, in which $'\n' is a line break."""
    written = whole[: whole.rindex(_RESPONSE)].replace(_PROMPT, "{prompt}") + "{response}"
    begin = cast("str | None", tokenizer.bos_token)
    if begin and _adds_beginning(tokenizer):
        written = written.removeprefix(begin)
    quoted = setting("model.template", written).replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{quoted}'"


def _adds_beginning(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer puts its beginning-of-sequence token, which it must have, before every text."""
    ids = cast("list[int]", tokenizer(f"{tokenizer.bos_token}a")["input_ids"])
    return ids[:2] == [tokenizer.bos_token_id] * 2


def check_tokens(encoding: Encoding, num_embeddings: int, path: str) -> None:
    """Raise ValueError if a token that the model must read is outside its embeddings.

    The tokens checked are the padding and end tokens, the tokens that the template writes, and all words that a prompt
    may hold. Other control tokens are read only if they are parsed in prompts (`model.special_tokens=parse`).

    Args:
        encoding: of the tokenizer, with the template.
        num_embeddings: the number of tokens that the model knows.
        path: the name of the model in the message.
    """
    tokenizer = encoding.tokenizer
    pad, end = cast(int, tokenizer.pad_token_id), cast(int, tokenizer.eos_token_id)
    ((before, behind),) = encoding.pairs([_PROMPT], [_RESPONSE])
    control = {} if encoding.special_tokens == "parse" else ControlTokens(tokenizer, encoding.template).tokens
    words = sorted(number for number in tokenizer.get_vocab().values() if number not in control)
    for what, numbers in (
        ("the padding token", [pad]),
        ("the end-of-sequence token", [end]),
        (f"what model.template={encoding.template!r} writes, the token", [*before, *behind]),
        ("the word", words),
    ):
        if beyond := [number for number in numbers if number >= num_embeddings]:
            name = tokenizer.convert_ids_to_tokens(beyond[0])
            remedy = f"set pad_token to {tokenizer.eos_token!r} in its tokenizer_config.json" if beyond == [pad] else ""
            raise ValueError(
                f"model.path={path}: {what} {name!r} has number {beyond[0]}, and the model has embeddings for "
                f"{num_embeddings} tokens only; {remedy or 'give it the tokenizer that belongs to its weights'}, or "
                "enlarge the model with resize_token_embeddings and save it again"
            )
