"""Prompts and responses as tokens: the template, its special tokens, and how to cut a prompt that is too long.

A causal model reads prompt and response as one text. The tokens of a response are therefore those that the whole text
has in addition to the prompt's, as in lm-eval: on its own, a response would be tokenized like the beginning of a text.
An encoder-decoder reads the prompt in its encoder, including the special tokens that end it, and starts its response
separately.

Special tokens come from the template and the tokenizer. By default, text in a prompt or a response that looks like a
control token is plain text. All texts are tokenized as they are. Then `aliquot.models.control_tokens` reads again those
whose prompt or response spells out a control token, and those with control tokens other than the template's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

from aliquot.models.control_tokens import ControlTokens
from aliquot.pools.conversation import as_text, turns_of, with_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The template that stands for the tokenizer's own chat template.
CHAT = "chat"
#: How to treat a prompt that is too long -> the part that is removed.
OVERLONG = {"cut_start": "beginning", "cut_end": "end", "refuse": "nothing"}
#: Prompts that differ in every token: everything that differs between their encodings belongs to the prompt.
_PROBES = ("a", "b")

Ids = list[int]
#: Writes the texts of prompts and responses.
_Write = Callable[[Sequence[str], Sequence[str]], list[str]]


@dataclass(frozen=True)
class Encoding:
    """Encodes prompts, and pairs of prompt and response, with one template.

    Args:
        tokenizer: of the model.
        template: one example with `{prompt}` and, last, `{response}`; or `chat`.
        overlong: how to treat a prompt that is too long, one of `OVERLONG`.
        decoder_start: the token with which a decoder starts the response to what the encoder read; None for a causal
            model.
        special_tokens: how to treat control tokens in prompts and responses: as plain text (`text`) or as the tokens
            that they look like (`parse`).
        each_turn: whether a plain template is written again for each response in a conversation, with a blank line
            between, as base models are shown examples. Otherwise it is written once, around the whole conversation.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    overlong: str
    decoder_start: int | None
    special_tokens: str = "text"
    each_turn: bool = False

    def prompts(self, prompts: Sequence[str]) -> list[Ids]:
        """Return the tokens up to the start of the response, special tokens included; none is cut."""
        return self.read(prompts)[0]

    def read(self, prompts: Sequence[str]) -> tuple[list[Ids], set[int]]:
        """Return the result of `prompts`, and which prompts hold text that looks like a control token, read as text."""
        return self._encode(prompts, [""] * len(prompts), self._openings, self._tokens)

    def pairs(self, prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[Ids, Ids]]:
        """Return the tokens of prompts and of their responses, which end with the end-of-sequence token."""
        return self.read_pairs(prompts, responses)[0]

    def read_pairs(self, prompts: Sequence[str], responses: Sequence[str]) -> tuple[list[tuple[Ids, Ids]], set[int]]:
        """Return the result of `pairs`, and which pairs hold text that looks like a control token, read as text."""
        before, literal = self.read(prompts)
        if self._has_encoder:
            rests, more = self._encode(prompts, responses, lambda _, responses: list(responses), self._target)
        else:
            whole, more = self._encode(prompts, responses, self._wholes, self._tokens)
            rests = [both[len(ids) :] for ids, both in zip(before, whole, strict=True)]
            # Generation could not produce a token that crosses the border.
            over = [i for i, (ids, both) in enumerate(zip(before, whole, strict=True)) if both[: len(ids)] != ids]
            apart, _ = self._encode([prompts[i] for i in over], [responses[i] for i in over], self._rests, self._bare)
            for i, ids in zip(over, apart, strict=True):
                rests[i] = ids
        end = cast(int, self.tokenizer.eos_token_id)
        ended = [rest if rest[-1:] == [end] else [*rest, end] for rest in rests]
        return list(zip(before, ended, strict=True)), literal | more

    @cached_property
    def frame(self) -> tuple[int, int]:
        """Count the tokens before and after the text of every prompt: those of the template, and special tokens."""
        one, other = self.prompts(_PROBES)
        if one == other:  # the tokenizer knows neither prompt
            leading, trailing = map(len, self._around(self._tokens))
            return leading, trailing
        return _num_shared(one, other), _num_shared(one[::-1], other[::-1])

    def shorten(self, ids: Sequence[int], room: int) -> Sequence[int]:
        """Cut an encoded prompt to `room` tokens; the template's tokens around it are kept.

        If not even those fit, only the last `room` tokens are kept.

        Raises:
            ValueError: the prompt is longer, and overlong prompts are refused.
        """
        if len(ids) <= room:
            return ids
        if self.overlong == "refuse":
            begin = self.tokenizer.decode(list(ids[:16]), skip_special_tokens=True)
            raise ValueError(
                f"the prompt that begins with {begin!r} takes {len(ids)} tokens, and there is room for {room}; raise "
                "model.max_tokens, drop the prompt, or set model.overlong=cut_start or cut_end"
            )
        head, tail = self.frame
        if head + tail >= room:
            return ids[len(ids) - room :]
        if self.overlong == "cut_end":
            return [*ids[: room - tail], *ids[len(ids) - tail :]]
        return [*ids[:head], *ids[len(ids) - room + head :]]

    @property
    def _has_encoder(self) -> bool:
        return self.decoder_start is not None

    def _openings(self, prompts: Sequence[str], responses: Sequence[str]) -> list[str]:
        return [before for before, _ in self._texts(prompts, responses)]

    def _rests(self, prompts: Sequence[str], responses: Sequence[str]) -> list[str]:
        return [rest for _, rest in self._texts(prompts, responses)]

    def _wholes(self, prompts: Sequence[str], responses: Sequence[str]) -> list[str]:
        return [before + rest for before, rest in self._texts(prompts, responses)]

    def _texts(self, prompts: Sequence[str], responses: Sequence[str]) -> list[tuple[str, str]]:
        """Fill in the template; return the text up to the response, and the text from there on."""
        pairs = zip(prompts, responses, strict=True)
        if self.template == CHAT:
            return [self._chat(prompt, response) for prompt, response in pairs]
        filled = [(self._opening(prompt), response) for prompt, response in pairs]
        # Trailing spaces count as part of the response: tokenizers join them with the word that follows.
        return [(text.rstrip(" "), text[len(text.rstrip(" ")) :] + response) for text, response in filled]

    def _opening(self, prompt: str) -> str:
        """Write a prompt with a plain template, up to its response."""
        opening = self.template.removesuffix("{response}")
        if not self.each_turn:
            return opening.replace("{prompt}", as_text(prompt))
        turns = turns_of(prompt)
        return "".join(opening.replace("{prompt}", text) if role == "user" else f"{text}\n\n" for role, text in turns)

    def _chat(self, prompt: str, response: str) -> tuple[str, str]:
        """Write a conversation with the chat template, up to the token that ends the response."""
        before, whole = self.turn(self.tokenizer, prompt, response)
        # Some templates write other blanks in a finished turn than in an open one.
        return before, whole[len(before) :] if whole.startswith(before) else response

    @staticmethod
    def turn(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> tuple[str, str]:
        """Return a conversation by the chat template, opened for the response, and finished without trailing blanks."""
        turns = [{"role": role, "content": text} for role, text in (*turns_of(prompt), ("assistant", response))]
        fill = tokenizer.apply_chat_template
        before = cast(str, fill(turns[:-1], tokenize=False, add_generation_prompt=True))
        return before, cast(str, fill(turns, tokenize=False)).rstrip()

    def _encode(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        write: _Write,
        tokenize: Callable[[list[str]], list[Ids]],
    ) -> tuple[list[Ids], set[int]]:
        """Tokenize texts; also return in which of them text that looks like a control token was read as text."""
        if not prompts:
            return [], set()
        probe = _PROBES[0]
        written = write([*prompts, probe], [*responses, probe])
        *found, template = tokenize(written)
        if self.special_tokens == "parse":
            return found, set()
        control, changed = self._control, set[int]()
        expected, (leading, trailing) = control.of(template), self._around(tokenize)
        num_unknown = control.count_unknown(written[-1])
        for i, (ids, *texts) in enumerate(zip(found, prompts, responses, strict=True)):
            # A chat template may act on such text, and still produce the expected control tokens.
            spelled = any(map(control.spelled_in, texts))
            if spelled or control.of(ids) != expected or control.count_unknown(written[i]) != num_unknown:
                mark = control.mark_for(*texts)
                (hidden,) = write(
                    [with_texts(prompts[i], lambda text, mark=mark: control.hide(text, mark))],
                    [control.hide(responses[i], mark)],
                )
                found[i] = [*leading, *control.read(hidden, mark), *trailing]
                if found[i] != ids:
                    changed.add(i)
        return found, changed

    @cached_property
    def _control(self) -> ControlTokens:
        # A chat template is a program: its output counts, not its source. No token contains a NUL.
        ((before, rest),) = self._texts(["\0"], ["\0"])
        return ControlTokens(self.tokenizer, before + rest)

    def _tokens(self, texts: list[str]) -> list[Ids]:
        """Tokenize texts; for a causal model, without the special tokens that would end them: our texts continue."""
        if self.template == CHAT:
            return self._bare(texts)  # the template has written the special tokens already
        trailing = 0 if self._has_encoder else self._num_trailing
        return [ids[: len(ids) - trailing] for ids in self._ids(texts)]

    def _bare(self, texts: list[str]) -> list[Ids]:
        return self._ids(texts, add_special_tokens=False)

    def _target(self, texts: list[str]) -> list[Ids]:
        """Tokenize the text that a decoder should write."""
        return self._ids(None, text_target=texts)

    def _ids(self, texts: list[str] | None, **options: Any) -> list[Ids]:
        """Call the tokenizer without its warning about long texts: we cut or refuse them, and report that."""
        return cast(list[Ids], self.tokenizer(texts, verbose=False, **options)["input_ids"])

    @cached_property
    def _num_trailing(self) -> int:
        """Count the special tokens that the tokenizer adds after a text."""
        return len(self._around(self._ids)[1])

    def _around(self, tokenize: Callable[[list[str]], list[Ids]]) -> tuple[Ids, Ids]:
        """Return the special tokens before and after a text."""
        (bare,), (full,) = self._bare(["a"]), tokenize(["a"])
        added = len(full) - len(bare)
        leading = next((i for i in range(added) if full[i : i + len(bare)] == bare), added)
        return full[:leading], full[leading + len(bare) :]


def _num_shared(one: Ids, other: Ids) -> int:
    """Count the tokens that both share at the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
