"""The pass itself as Lightning sees it: one prefill a batch serves features and greedy decoding alike.

The prefill leaves the hidden states, pooled to features, the logits of the last position and the key-value cache, from
which the model's own response is decoded. Per generated token three numbers leave the device, never the vocabulary.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Int64
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aliquot.batching import EncodedPrompts
from aliquot.decoding import Reader
from aliquot.features import gaussian_projection, pool_positions
from aliquot.progress import Progress
from aliquot.trainer import is_small

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from aliquot.scoring import Scorer, TokenFeatureSpec
    from aliquot.shards import Shards


class Batch(NamedTuple):
    """Left-padded prompts that are read together; `rows` says which they are."""

    rows: Int64[Tensor, " b"]
    tokens: Int64[Tensor, "b l"]
    mask: Int64[Tensor, "b l"]


class PromptBatches(Dataset[Batch]):
    """One item = one planned batch, so that devices may share out whole batches.

    Args:
        encoded: the tokens of the pool.
        batches: the rows of each batch.
        pad: the padding token.
    """

    def __init__(self, encoded: EncodedPrompts, batches: Sequence[Int64[np.ndarray, " b"]], pad: int) -> None:
        self._encoded, self._batches, self._pad = encoded, batches, pad

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        rows = self._batches[index]
        tokens, mask = self._encoded.left_pad(rows, self._pad)
        return Batch(torch.from_numpy(rows), torch.from_numpy(tokens), torch.from_numpy(mask))

    def loader(self) -> DataLoader[Batch]:
        """Return the loader that leaves batches as they are."""
        return DataLoader(self, batch_size=None)


class ScoringModule(LightningModule):
    """Reads batches of prompts and says what the model thought.

    On a CPU, and for a small model, each thread reads a part of the batch on its own: the operators are too small to be
    shared out between threads one by one.

    Args:
        network: any causal language model of transformers.
        scorer: which signals to keep.
        ends: the tokens that end a response.
    """

    ends: Tensor
    projection: Tensor | None

    def __init__(self, network: PreTrainedModel, scorer: Scorer, ends: Sequence[int]) -> None:
        super().__init__()
        self.network, self._scorer = network, scorer
        self._inner_layer = scorer.layer % num_layers(network) != num_layers(network) - 1
        self.register_buffer("ends", torch.tensor(list(ends)))
        self.register_buffer("projection", _projection(network, scorer.token_features))
        self._last_states: dict[int, Tensor] = {}  # of each thread
        network.base_model.register_forward_hook(self._keep_last_states)
        self._threads: ThreadPoolExecutor | None = None
        self._num_threads = torch.get_num_threads()

    def _keep_last_states(self, backbone: torch.nn.Module, args: Any, output: Any) -> None:
        """Catch what the output layer reads: asking transformers for hidden states would keep those of all layers."""
        self._last_states[get_ident()] = output.last_hidden_state

    def on_predict_start(self) -> None:
        """Start the threads, whose operators use no further ones."""
        if self.device.type == "cpu" and is_small(self) and self._num_threads > 1:
            self._threads = ThreadPoolExecutor(self._num_threads, initializer=torch.set_num_threads, initargs=(1,))

    def close(self) -> None:
        """End the threads and give torch's operators theirs back."""
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
            torch.set_num_threads(self._num_threads)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the signals of a batch: `rows`, `features`, and what belongs to single tokens, flat.

        That are the token statistics with `token_lengths`, and `token_vectors` with `token_vector_lengths`.
        """
        if self._threads is None:
            return self.signals(batch)
        count = min(self._num_threads, len(batch.rows))
        parts = [Batch(*(values.tensor_split(count)[i] for values in batch)) for i in range(count)]
        answers = list(self._threads.map(self.signals, parts))
        return {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}

    @torch.inference_mode()
    def signals(self, batch: Batch) -> dict[str, Tensor]:
        """Run the model on a batch."""
        reader, num_new = Reader(self.network, self.ends), self._scorer.max_new_tokens
        room = max(num_new - 1, 0)  # the last generated token is not read
        mask = torch.cat([batch.mask, batch.mask.new_ones(len(batch.mask), room)], dim=1)
        cache = reader.new_cache(room)
        output = reader.read(batch.tokens, mask, cache, output_hidden_states=self._inner_layer)
        states = self._last_states[get_ident()]
        hidden = output.hidden_states[self._scorer.layer] if self._inner_layer else states
        signals = {"rows": batch.rows, "features": pool_positions(hidden, batch.mask, self._scorer.position)}
        spec = self._scorer.token_features
        if spec and spec.source == "prompt":
            kept = batch.mask[:, -spec.max_tokens :] == 1
            vectors = self._project(states[:, -spec.max_tokens :][kept])
            signals |= {"token_vector_lengths": kept.sum(dim=1), "token_vectors": vectors}
        if num_new:
            from_response = spec is not None and spec.source == "response"
            pre_logits = (lambda: self._project(self._last_states[get_ident()][:, -1])) if from_response else None
            signals |= reader.respond(output.logits[:, -1], mask, cache, num_new, pre_logits)
        if "pre_logits" in signals and spec:
            signals |= _last_tokens(signals["token_lengths"], signals.pop("pre_logits"), spec.max_tokens)
        del self._last_states[get_ident()]
        # Copies: a view, such as the last position, would keep the states of all positions until the next shard.
        return {name: values.cpu().clone() for name, values in signals.items()}

    def _project(self, states: Tensor) -> Tensor:
        states = states.float()
        return states if self.projection is None else states @ self.projection


def state_width(network: PreTrainedModel) -> int:
    """Return the dimensions of what the output layer reads."""
    return cast(Any, network.get_output_embeddings()).weight.shape[1]


def _projection(network: PreTrainedModel, spec: TokenFeatureSpec | None) -> Tensor | None:
    """Draw the matrix that narrows token features, or None where they are narrow enough, or not kept."""
    if spec is None or state_width(network) <= spec.projection:
        return None
    return torch.from_numpy(gaussian_projection(state_width(network), spec.projection, spec.projection_seed))


def _last_tokens(lengths: Int64[Tensor, " b"], vectors: Tensor, most: int) -> dict[str, Tensor]:
    """Keep the last `most` of each row's tokens."""
    behind = lengths.cumsum(dim=0).repeat_interleave(lengths) - torch.arange(len(vectors), device=lengths.device)
    return {"token_vector_lengths": lengths.clamp(max=most), "token_vectors": vectors[behind <= most]}


def num_layers(network: PreTrainedModel) -> int:
    """Return how many hidden states there are: the embeddings and one of each layer."""
    return network.config.get_text_config().num_hidden_layers + 1


def end_tokens(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return every token that ends a response: chat models name several."""
    named: int | list[int] | None = network.generation_config.eos_token_id if network.generation_config else None
    several = named if isinstance(named, list) else [named]
    own = cast("int | None", tokenizer.eos_token_id)
    return sorted({token for token in [*several, own] if token is not None})


def check_fits(network: PreTrainedModel, scorer: Scorer, longest: int) -> None:
    """Raise ValueError, before the pass, where the model lacks the layer or the positions."""
    count = num_layers(network)
    if not -count <= scorer.layer < count:
        raise ValueError(
            f"scorer.layer={scorer.layer} is outside {-count}..{count - 1}: the model has {count - 1} layers "
            "(0 is the embeddings, -1 the last layer); choose one of these"
        )
    positions = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    needed = longest + max(scorer.max_new_tokens - 1, 0)  # the last generated token is not read
    if positions is not None and needed > positions:
        raise ValueError(
            f"a prompt of {longest} tokens and {scorer.max_new_tokens} new ones take {needed} positions, the model has "
            f"{positions}; set model.max_tokens={positions}"
        )


class ShardWriter(Callback):
    """Saves the predictions every `shard_size` prompts, or when told to end, and tells how far the pass is."""

    def __init__(self, shards: Shards, shard_size: int, progress: Progress, interrupted: Event) -> None:
        self._shards, self._shard_size, self._progress, self._interrupted = shards, shard_size, progress, interrupted
        self._waiting: list[dict[str, Tensor]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the signals of a batch; save when there are enough, or when told to end: Lightning would read on."""
        self._waiting.append(outputs)
        self._progress.update(len(outputs["rows"]))
        told_to_end = trainer.received_sigterm or self._interrupted.is_set()
        if told_to_end or sum(len(signals["rows"]) for signals in self._waiting) >= self._shard_size:
            self._save()
        if self._interrupted.is_set():
            raise KeyboardInterrupt
        if trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the rest."""
        if self._waiting:
            self._save()

    def _save(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._shards.write({name: torch.cat([s[name] for s in waiting]).numpy() for name in waiting[0]})
