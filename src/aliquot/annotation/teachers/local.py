"""A teacher on this machine: any transformers model, loaded with the same checks as the one that is finetuned."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from aliquot.annotation.teachers.ledger import LENGTH, Ledger, Question, Reply, now
from aliquot.annotation.teachers.teacher import Teacher
from aliquot.models.spec import Model
from aliquot.models.template import Encoding, Ids
from aliquot.pools.conversation import SIGN, as_prompt
from aliquot.pools.spec import PoolSpec
from aliquot.runtime.progress import Progress
from aliquot.runtime.signals import interruptible, terminable
from aliquot.runtime.trainer import TrainerSpec, threads_for

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_Encoded = tuple[Question, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class LocalTeacher(Teacher):
    """Generates in batches on one device.

    The response to a prompt depends on the seed and the prompt, not on its batch, except for the last bits of the
    arithmetic, which may replace a token by another of nearly the same probability.

    Args:
        model: the teacher, the template in which it reads prompts, and what happens to a prompt that leaves no room for
            `max_tokens` new tokens in the model's own `max_tokens`.
        seed: for sampling at temperatures above 0; None counts as 0.
        batch_size: number of simultaneous prompts.
        trainer: specifies the device.
    """

    resources: ClassVar[str | None] = "score"  # it needs the same resources as the scoring pass

    model: Model
    seed: int | None = 0
    batch_size: int = field(default=16, metadata={"key": False})
    trainer: TrainerSpec = field(default=TrainerSpec(), metadata={"key": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature is None:
            raise ValueError("annotator.temperature=null leaves it to a server, and here is none; give 0 or more")
        if self.batch_size < 1:
            raise ValueError(f"annotator.batch_size={self.batch_size} is too small; give at least 1")
        if self.max_tokens >= self.model.max_tokens:
            raise ValueError(
                f"annotator.max_tokens={self.max_tokens} new tokens leave no room for a prompt in "
                f"annotator.model.max_tokens={self.model.max_tokens}; lower the one or raise the other"
            )

    @property
    def name(self) -> str:
        return self.model.path.rstrip("/").rpartition("/")[2]

    def most(self, ids: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return the price of each prompt's tokens, which this machine can count, and of the longest response."""
        tokens, _ = self.model.encoding(self.model.load_tokenizer()).read(prompts)
        room = self.model.max_tokens - self.max_tokens
        return [self.price_per_million.of(min(len(read), room), self.max_tokens) for read in tokens]

    def check(self, source: PoolSpec) -> None:
        """Raise ValueError if the model cannot be found or loaded here."""
        self.model.check()

    def ask(self, questions: Sequence[Question], ledger: Ledger, progress: Progress) -> dict[str, str]:
        """Generate responses; Ctrl-C and SIGTERM wait for the end of the batch."""
        from torch import OutOfMemoryError

        tokenizer = self.model.load_tokenizer()
        encoded, reasons = self._encode(tokenizer, questions, ledger)
        progress.update(len(questions) - len(encoded) - len(reasons))
        if not encoded:
            return reasons
        network = self.model.load().to(self.trainer.device())  # pyright: ignore[reportArgumentType]
        generate = Generate(self, network, tokenizer)
        with interruptible() as interrupted, terminable() as terminated, threads_for(network):
            for batch in _batches(encoded, self.batch_size):
                try:
                    ledger.add(*generate(batch))
                except OutOfMemoryError as error:
                    do = "prompt does" if len(batch) == 1 else "prompts do"
                    raise ValueError(
                        f"annotator.batch_size={len(batch)} {do} not fit into memory "
                        f"({str(error).splitlines()[0]}); lower it: what was answered is kept"
                    ) from error
                progress.update(len(batch))
                if terminated.is_set():
                    raise SystemExit(128 + signal.SIGTERM)
                if interrupted.is_set():
                    raise KeyboardInterrupt
        return reasons

    def _encode(
        self, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], ledger: Ledger
    ) -> tuple[list[_Encoded], dict[str, str]]:
        """Tokenize prompts; those that the model refuses because of their length are returned with the reason.

        A prompt without control tokens is still read as text, as it was before this was a choice: old answers stay in
        the ledger, and the prompt is not asked again. Examples for which there is no room are left out, the least
        similar first.
        """
        encoding, room = self.model.encoding(tokenizer), self.model.max_tokens - self.max_tokens
        known = replace(self, model=replace(self.model, special_tokens="parse")).ledger(ledger.path.parent).replies
        tokens, literal = encoding.read([q.prompt for q in questions])
        encoded: list[_Encoded] = []
        reasons: dict[str, str] = {}
        for i, (question, ids) in enumerate(zip(questions, tokens, strict=True)):
            if question.examples:
                ids = _with_examples(encoding, question, room) or ids
            elif question.key in known and i not in literal:
                ledger.add(known[question.key])
                continue
            if len(ids) > room and self.model.overlong == "refuse":
                reasons[question.key] = (
                    f"longer than the {room} tokens that annotator.model.max_tokens={self.model.max_tokens} leaves "
                    "next to the response; raise it, or set annotator.model.overlong=cut_start or cut_end"
                )
            else:
                encoded.append((question, encoding.shorten(ids, room)))
        return encoded, reasons


def _with_examples(encoding: Encoding, question: Question, room: int) -> Ids | None:
    """Return the tokens of a question after as many of its examples as there is room for; None if for no one."""
    in_turns = replace(encoding, each_turn=True)
    for first in range(len(question.examples)):
        turns = replace(question, examples=question.examples[first:]).turns
        # A sign inside a turn would end it.
        (ids,) = in_turns.prompts([as_prompt([(role, text.replace(SIGN, "")) for role, text in turns])])
        if len(ids) <= room:
            return ids
    return None


class Generate:
    """Generates the responses to a batch of prompts.

    Args:
        teacher: the settings.
        network: of the teacher; the generation settings in its own files are ignored, so that no penalty or temperature
            from them is mixed in.
        tokenizer: of the network.
    """

    def __init__(self, teacher: LocalTeacher, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        from transformers import GenerationConfig

        from aliquot.scoring.module import end_tokens

        self._teacher, self._network, self._tokenizer = teacher, network, tokenizer
        self._ends, self._pad = end_tokens(network, tokenizer), cast(int, tokenizer.pad_token_id)
        self._is_encoder_decoder = bool(network.config.is_encoder_decoder)
        network.generation_config = GenerationConfig()
        self._config = GenerationConfig(
            max_new_tokens=teacher.max_tokens,
            do_sample=False,  # even if tokens are sampled: see _Lots
            eos_token_id=self._ends,
            pad_token_id=self._pad,
            decoder_start_token_id=network.config.decoder_start_token_id if self._is_encoder_decoder else None,
        )

    def __call__(self, batch: Sequence[_Encoded]) -> Iterator[Reply]:
        import torch

        width = max(len(ids) for _, ids in batch)
        tokens = torch.full((len(batch), width), self._pad)
        for row, (_, ids) in zip(tokens, batch, strict=True):
            row[width - len(ids) :] = torch.tensor(ids)
        lengths = torch.tensor([len(ids) for _, ids in batch])
        mask = (torch.arange(width) >= width - lengths[:, None]).long()
        lots = [_Lots(self._teacher, [question for question, _ in batch])] if self._teacher.temperature else None
        network = cast(Any, self._network)
        with torch.inference_mode():
            out = network.generate(
                tokens.to(network.device),
                attention_mask=mask.to(network.device),
                generation_config=self._config,
                logits_processor=lots,
            )
        written = out[:, 1 if self._is_encoder_decoder else width :].tolist()
        return (self._reply(question, len(ids), row) for (question, ids), row in zip(batch, written, strict=True))

    def _reply(self, question: Question, num_read: int, written: list[int]) -> Reply:
        end = next((i for i, token in enumerate(written) if token in self._ends), None)
        return Reply(
            prompt=question.key,
            id=question.id,
            response=cast(str, self._tokenizer.decode(written[:end], skip_special_tokens=True)),
            ending=LENGTH if end is None else "stop",
            input_tokens=num_read,
            output_tokens=len(written) if end is None else end + 1,
            counted=True,
            model=self._teacher.name,
            time=now(),
            price=self._teacher.price,
        )


class _Lots:
    """Samples tokens: the token that is likeliest after noise is added is a draw from the distribution (Gumbel 1954).

    Each prompt has its own noise, which no other prompt in its batch can change.
    """

    def __init__(self, teacher: LocalTeacher, questions: Sequence[Question]) -> None:
        import torch

        assert teacher.temperature
        self._temperature = teacher.temperature
        seeds = [hashlib.sha256(f"{teacher.seed or 0} {q.prompt}".encode()).digest()[:8] for q in questions]
        self._lots = [torch.Generator().manual_seed(int.from_bytes(seed) >> 1) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        drawn = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=lots) for lots in self._lots])
        return scores.float() / self._temperature - drawn.log().to(scores.device)


def _batches(encoded: Sequence[_Encoded], size: int) -> Iterator[Sequence[_Encoded]]:
    """Yield batches of prompts of similar length, the longest first, so that running out of memory shows early."""
    ordered = sorted(encoded, key=lambda pair: len(pair[1]), reverse=True)
    return (ordered[i : i + size] for i in range(0, len(ordered), size))
