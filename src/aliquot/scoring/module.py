"""The scoring pass as a Lightning module: one prefill per batch serves both features and greedy decoding.

The prefill yields the hidden states, pooled to features, the logits of the last position and the key-value cache, from
which the model's own response is decoded. Per generated token three numbers leave the device, never the vocabulary.
In an encoder-decoder, the encoder gives the features and the decoder the response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aliquot.runtime.trainer import is_small
from aliquot.scoring.batching import Batch, EncodedPrompts
from aliquot.scoring.decoding import give_float32_logits, respond
from aliquot.scoring.features import gaussian_projection, pool_positions
from aliquot.scoring.kv_cache import CausalContext, Context, DecoderContext, decoder_of
from aliquot.scoring.out_of_memory import MemoryGuard
from aliquot.scoring.spec import features_name, num_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from aliquot.scoring.spec import Scorer, TokenFeatureSpec


class Prefill(NamedTuple):
    """The result of reading the prompts.

    Args:
        hidden: states of the layers that give the features, for all tokens, by layer.
        states: of the last layer.
        context: what the model continues from.
        logits: of the first token of the responses.
    """

    hidden: Mapping[int, Float[Tensor, "b l d"]]
    states: Float[Tensor, "b l d"]
    context: Context
    logits: Float[Tensor, "b v"]


class PromptBatches(Dataset[Batch]):
    """One item is one planned batch, so that devices can share out whole batches.

    Args:
        encoded: the tokens of the pool.
        batches: the rows of each batch.
        pad: the padding token.
        side: where padding goes. The last tokens of a causal model's prompts must be aligned, because it continues from
            them; an encoder that counts positions from the first token must find that token at the beginning.
    """

    def __init__(
        self, encoded: EncodedPrompts, batches: Sequence[Int64[np.ndarray, " b"]], pad: int, side: str
    ) -> None:
        self._encoded, self._batches, self._pad, self._side = encoded, batches, pad, side

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        rows = self._batches[index]
        tokens, mask = self._encoded.padded(rows, self._pad, self._side)
        return Batch(torch.from_numpy(rows), torch.from_numpy(tokens), torch.from_numpy(mask))

    def loader(self) -> DataLoader[Batch]:
        """Return a loader that leaves batches unchanged."""
        return DataLoader(self, batch_size=None)


class ScoringModule(LightningModule):
    """Reads batches of prompts and returns their signals.

    On a CPU, for a small model, each thread reads a part of the batch on its own: the single operators are too small to
    be split between threads.

    Args:
        network: any causal language model or encoder-decoder of transformers.
        scorer: which signals to keep.
        ends: the tokens that end a response.
        halved: called whenever a batch did not fit into memory, with the new largest number of tokens in a batch.
    """

    ends: Tensor
    projection: Tensor | None

    def __init__(
        self, network: PreTrainedModel, scorer: Scorer, ends: Sequence[int], halved: Callable[[int], object]
    ) -> None:
        super().__init__()
        give_float32_logits(network)
        self.network, self._scorer = network, scorer
        count = num_layers(network.config)
        self._last_layer, self._layers = count - 1, {layer: layer % count for layer in scorer.layers}
        self.register_buffer("ends", torch.tensor(list(ends)))
        self.register_buffer("projection", _projection(network, scorer.token_features))
        self._last_states: dict[int, Tensor] = {}  # by thread
        self._pre_logits: dict[int, Tensor] = {}
        if not network.config.is_encoder_decoder:
            decoder_of(network).register_forward_hook(self._keep_last_states)
        cast(torch.nn.Module, network.get_output_embeddings()).register_forward_pre_hook(self._keep_pre_logits)
        self._guard = MemoryGuard(self._on_threads, scorer.max_new_tokens, halved)
        self._threads: ThreadPoolExecutor | None = None
        self._num_threads = torch.get_num_threads()

    def _keep_last_states(self, backbone: torch.nn.Module, args: Any, output: Any) -> None:
        """Catch the last layer's states: asking transformers for hidden states would keep other layers' too."""
        self._last_states[get_ident()] = output.last_hidden_state

    def _keep_pre_logits(self, output_layer: torch.nn.Module, args: tuple[Any, ...]) -> None:
        """Catch the input of the output layer."""
        self._pre_logits[get_ident()] = args[0]

    def on_predict_start(self) -> None:
        """Start the threads; the operators in each use a single thread."""
        if self.device.type == "cpu" and is_small(self) and self._num_threads > 1:
            self._threads = ThreadPoolExecutor(self._num_threads, initializer=torch.set_num_threads, initargs=(1,))

    def close(self) -> None:
        """End the threads, and give torch's operators their threads back."""
        if self._threads:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
            torch.set_num_threads(self._num_threads)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the signals of a batch: `rows`, `features` of every view, and the signals of single tokens, flat.

        The latter are the token statistics with `token_lengths`, and `token_vectors` with `token_vector_lengths`.
        """
        return _joined(self._guard.run(batch))

    def _on_threads(self, batch: Batch) -> dict[str, Tensor]:
        if self._threads is None:
            return self.signals(batch)
        count = min(self._num_threads, len(batch.rows))
        parts = [Batch(*(values.tensor_split(count)[i] for values in batch)) for i in range(count)]
        answers = [self._threads.submit(self.signals, part) for part in parts]
        wait(answers)  # for all, even if one failed: the memory of the others must be free before the next attempt
        return _joined([answer.result() for answer in answers])

    @torch.inference_mode()
    def signals(self, batch: Batch) -> dict[str, Tensor]:
        """Run the model on a batch."""
        try:
            signals = self._signals(batch)
        finally:
            for caught in (self._last_states, self._pre_logits):
                caught.pop(get_ident(), None)
        # Copy them: a view, such as the last position, would keep the states of all positions until the next shard.
        return {name: values.cpu().clone() for name, values in signals.items()}

    def _signals(self, batch: Batch) -> dict[str, Tensor]:
        spec, num_new = self._scorer.token_features, self._scorer.max_new_tokens
        prefill = self._encode(batch) if self.network.config.is_encoder_decoder else self._read(batch)
        signals = {"rows": batch.rows}
        for view, (position, layer) in self._scorer.views.items():
            signals[features_name(self._scorer, view)] = pool_positions(prefill.hidden[layer], batch.mask, position)
        if spec and spec.source == "prompt":
            kept = batch.mask[:, -spec.max_tokens :] == 1
            vectors = self._project(prefill.states[:, -spec.max_tokens :][kept])
            signals |= {"token_vector_lengths": kept.sum(dim=1), "token_vectors": vectors}
        if num_new:
            from_response = spec is not None and spec.source == "response"
            pre_logits = (lambda: self._project(self._pre_logits[get_ident()][:, -1])) if from_response else None
            signals |= respond(prefill.context, prefill.logits, self.ends, num_new, pre_logits)
        if "pre_logits" in signals and spec:
            signals |= _last_tokens(signals["token_lengths"], signals.pop("pre_logits"), spec.max_tokens)
        return signals

    def _read(self, batch: Batch) -> Prefill:
        """Let a causal model read the prompts, up to the first token of the response."""
        context = CausalContext(self.network, batch.mask, max(self._scorer.max_new_tokens - 1, 0))
        output = context.read(batch.tokens, **self._asked())
        states = self._last_states[get_ident()]
        return Prefill(self._chosen(output, states), states, context, output.logits[:, -1])

    def _encode(self, batch: Batch) -> Prefill:
        """Let the encoder read the prompts, and the decoder the token that responses start with."""
        output = self.network.get_encoder()(batch.tokens, attention_mask=batch.mask, **self._asked())
        states = output.last_hidden_state
        context = DecoderContext(self.network, states, batch.mask, self._scorer.max_new_tokens)
        logits = context.read(context.start_tokens()).logits[:, -1]
        return Prefill(self._chosen(output, states), states, context, logits)

    def _asked(self) -> dict[str, Any]:
        """Ask transformers for the inner layers that give features, and no others."""
        inner = sorted(set(self._layers.values()) - {self._last_layer})
        return {"output_hidden_states": inner} if inner else {}

    def _chosen(self, output: Any, states: Tensor) -> dict[int, Tensor]:
        """Return the states of each layer, by the number that the scorer gives it."""
        return {
            asked: states if layer == self._last_layer else output.hidden_states[layer]
            for asked, layer in self._layers.items()
        }

    def _project(self, states: Tensor) -> Tensor:
        states = states.float()
        return states if self.projection is None else states @ self.projection


def _joined(answers: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the signals of parts of a batch."""
    if len(answers) == 1:
        return answers[0]
    return {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}


def state_width(network: PreTrainedModel) -> int:
    """Return the number of dimensions of the output layer's input."""
    return cast(Any, network.get_output_embeddings()).weight.shape[1]


def _projection(network: PreTrainedModel, spec: TokenFeatureSpec | None) -> Tensor | None:
    """Draw the matrix that narrows token features, or return None if they are narrow enough or are not kept."""
    if spec is None or state_width(network) <= spec.projection:
        return None
    return torch.from_numpy(gaussian_projection(state_width(network), spec.projection, spec.projection_seed))


def _last_tokens(lengths: Int64[Tensor, " b"], vectors: Tensor, most: int) -> dict[str, Tensor]:
    """Keep the last `most` of each row's tokens."""
    remaining = lengths.cumsum(dim=0).repeat_interleave(lengths) - torch.arange(len(vectors), device=lengths.device)
    return {"token_vector_lengths": lengths.clamp(max=most), "token_vectors": vectors[remaining <= most]}


def end_tokens(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return every token that ends a response: chat models name several."""
    named: int | list[int] | None = network.generation_config.eos_token_id if network.generation_config else None
    several = named if isinstance(named, list) else [named]
    own = cast("int | None", tokenizer.eos_token_id)
    return sorted({token for token in [*several, own] if token is not None})
