"""The likelihood of responses that the model was not trained on: cheaper and smoother than any benchmark.

It is the quantity that finetuning minimizes, on other rows. Only a benchmark shows whether the model got better at a
task.
"""

# torch's annotations leave parameters out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float64

from aliquot.evaluation.rows import read_answered
from aliquot.models.control_tokens import note_literal
from aliquot.pools.columns import FIRST, Columns, check_conversations
from aliquot.pools.files import file_of
from aliquot.runtime.progress import Progress
from aliquot.store.content import content_hash
from aliquot.types import Adapter, AnnotatedSet

if TYPE_CHECKING:
    from aliquot.models.spec import Model

log = logging.getLogger(__name__)

#: The name of the score, and of its only task.
LIKELIHOOD = "validation_likelihood"


@dataclass(frozen=True)
class ValidationLoss:
    """Names held-out prompts with their responses.

    A row with a loss of L nats per response token scores exp(-L), the geometric mean of its tokens' probabilities: in
    (0, 1], larger is better.

    Args:
        path: a jsonl, csv or parquet file, compressed or not, of rows that are not in the pool.
        prompt: column of the prompt.
        response: column of the response.
        messages: column of conversations instead of both, or None, as in a pool.
        turn: the user turn that is answered, as in a pool.
        limit: read only the first N rows; None reads all.
        tokens_per_batch: padding included. Padding moves losses in the last bits, so it is part of the identity.
    """

    #: Whether rows are put in the model's template and cut to its `max_tokens`.
    reads_format: ClassVar[bool] = True

    path: str
    prompt: str = "prompt"
    response: str = "response"
    messages: str | None = None
    turn: str = FIRST
    limit: int | None = None
    tokens_per_batch: int = 4096

    def __post_init__(self) -> None:
        replaced = {"prompt": (self.prompt, "prompt"), "response": (self.response, "response")}
        check_conversations(self.turn, self.messages, replaced, "evaluate")
        for name in ("limit", "tokens_per_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"evaluate.{name}={value} is too small; give at least 1")

    @property
    def tasks(self) -> Sequence[str]:
        """The name of the score."""
        return [LIKELIHOOD]

    def identity(self) -> dict[str, object]:
        """Identify the rows by their content."""
        columns: dict[str, object] = {"prompt": self.prompt, "response": self.response}
        if self.messages:
            columns = {"messages": self.messages, "turn": self.turn}
        read = {"limit": self.limit, "tokens_per_batch": self.tokens_per_batch}
        return {"measure": LIKELIHOOD, "content": content_hash(file_of(self.path)), **columns, **read}

    def check(self) -> None:
        """Raise ValueError if the file, a prompt or a response is missing."""
        self.rows()

    def bare(self) -> ValidationLoss:
        """Return the spec without the fields that do not change its questions."""
        return replace(self, limit=None)

    def questions(self) -> Sequence[str]:
        """Return the text of every prompt."""
        return self.rows().prompts

    def rows(self) -> AnnotatedSet:
        """Read the rows.

        Raises:
            ValueError: there are none, or one has no prompt or no response.
        """
        columns = Columns(self.prompt, None, None, None, self.response, self.messages, self.turn)
        rows = list(read_answered(file_of(self.path), columns, self.limit))
        if not rows:
            raise ValueError(f"evaluate.path={self.path} has no rows; give prompts with responses")
        return AnnotatedSet(
            [row.id for _, row, _ in rows], [row.prompt for _, row, _ in rows], [str(said) for *_, said in rows]
        )


def row_losses(
    model: Model, adapter: Adapter | None, spec: ValidationLoss, device: str
) -> tuple[Float64[np.ndarray, " n"], float, int]:
    """Run the rows through the model, cut to its `max_tokens` as in finetuning.

    Returns:
        The mean loss of each row in nats per response token, the mean over all response tokens, and the number of rows
        cut.
    """
    import torch

    from aliquot.evaluation.likelihood import ScoredPositions
    from aliquot.finetuning.adapter import load_finetuned
    from aliquot.finetuning.examples import IGNORE, StepBatches, StepPlan, encode_examples, micro_batches

    tokenizer = model.load_tokenizer()
    assert isinstance(tokenizer.pad_token_id, int)
    examples = encode_examples(model, tokenizer, spec.rows())
    if examples.num_literal:
        log.info("evaluate %s: %s", LIKELIHOOD, note_literal(examples.num_literal, len(examples.tokens), "rows"))
    batches = micro_batches(examples.lengths, spec.tokens_per_batch, np.random.default_rng(0))
    targets = examples.lengths - examples.prompt_lengths
    steps = [[rows] for rows in batches]
    plan = StepPlan(
        steps, *(np.array([counts[rows].sum() for rows in batches]) for counts in (examples.lengths, targets))
    )
    network = (load_finetuned(model, adapter) if adapter else model.load()).to(device)  # pyright: ignore[reportArgumentType]
    sums = np.empty(len(targets))
    positions = ScoredPositions(network)
    with (
        torch.inference_mode(),
        positions.installed(),
        Progress(f"evaluate {LIKELIHOOD}", len(targets), "row") as progress,
    ):
        for rows, batch in zip(batches, StepBatches(examples, plan, tokenizer.pad_token_id), strict=True):
            ids, mask, wanted, decoder_ids = (None if t is None else t.to(device) for t in batch.micro_batches[0])
            assert wanted is not None
            response = {} if decoder_ids is None else {"decoder_input_ids": decoder_ids}
            read = partial(network, input_ids=ids, attention_mask=mask, use_cache=False, **response)
            sums[rows] = -positions.log_likelihoods(read, wanted, wanted != IGNORE).cpu().numpy()
            progress.update(len(rows))
    if not np.isfinite(sums).all():
        num_bad = len(sums) - np.isfinite(sums).sum()
        raise ValueError(f"evaluate: {num_bad} of {len(sums)} losses are not finite; change model.dtype")
    return sums / targets, float(sums.sum() / targets.sum()), examples.num_cut_prompts + examples.num_cut_responses
