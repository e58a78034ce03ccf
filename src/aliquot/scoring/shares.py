"""Which process reads which batches: this process reads all, or several processes read a share each.

Batches are dealt out in turn, so that shares are similar. A share leaves out rows that are in shards already: the
previous run may have had more or fewer processes.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Int64
from pytorch_lightning import Callback, LightningModule, Trainer

from aliquot.models.spec import Model
from aliquot.runtime.processes import Place, Share, run_side_by_side
from aliquot.runtime.progress import Progress
from aliquot.runtime.signals import interruptible
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.batching import EncodedPrompts, plan_batches
from aliquot.scoring.module import PromptBatches, ScoringModule, end_tokens, state_width
from aliquot.scoring.shards import ShardBuffer, Shards
from aliquot.scoring.spec import Scorer
from aliquot.store.lease import Lease
from aliquot.store.store import write_atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

#: Loads the network that reads; picklable.
Load = Callable[[], "PreTrainedModel"]


@dataclass(frozen=True)
class Pass:
    """A pass over the pool; picklable, so that other processes can do a share of it.

    Args:
        model: the model that reads.
        scorer: which signals to keep.
        trainer: which devices to use.
        encoded: the tokens of the pool.
        directory: where the scores will be; finished rows are in shards below it.
        load: returns the network of the model, bare or with an adapter.
    """

    model: Model
    scorer: Scorer
    trainer: TrainerSpec
    encoded: EncodedPrompts
    directory: Path
    load: Load

    @property
    def shards(self) -> Shards:
        return Shards(self.directory / "shards")

    @property
    def marker(self) -> Path:
        """The file by which the first process of a launch shows that it works on this pass."""
        return self.shards.directory / "launch"

    def run(self, at: Place, leases: ExitStack) -> None:
        """Make sure that all rows are in shards.

        If the processes were started from outside, each share has a lease, and we take all leases. We get the
        lease of a share that another process reads once that process is done or dead. Then we read the missing rows of
        the share, and no other process starts on it again until the leases are released.
        """
        num_shares = at.world if at.world > 1 else self.trainer.devices
        if at.world > 1:
            write_atomic(self.marker, at.launch)
            for share in (*range(at.rank, num_shares), *range(at.rank)):
                leases.enter_context(self.lease(share, num_shares))
                self.run_share(share, at)
        elif num_shares > 1 and self.missing(0, 1):
            with self._progress(0, 1) as progress:
                shares: list[Share] = [partial(self.read, share, num_shares, share) for share in range(num_shares)]
                run_side_by_side(shares, progress.update)
        else:
            self.run_share(0, at)

    def run_share(self, share: int, at: Place) -> None:
        """Read the missing rows of a share, in this process."""
        if self.missing(share, at.world):
            with self._progress(share, at.world) as progress, interruptible() as interrupted:
                self.read(share, at.world, at.local_rank, progress.update, interrupted.is_set)

    def lease(self, share: int, num_shares: int) -> Lease:
        """Return the lease that lets only one process at a time read a share."""
        name = f"share {share + 1} of {num_shares}"
        return Lease(self.directory / f"{name.replace(' ', '_')}.lease", what=f"{name} of the scoring pass")

    def missing(self, share: int, num_shares: int) -> list[Int64[np.ndarray, " b"]]:
        """Return the batches of a share, without the rows that are finished."""
        done = self.shards.finished_rows(len(self.encoded.lengths))
        batches = self._planned(share, num_shares)
        return [rows[~done[rows]] for rows in batches if not done[rows].all()]

    def read(
        self,
        share: int,
        num_shares: int,
        device: int,
        count: Callable[[int], object],
        told_to_end: Callable[[], bool],
    ) -> None:
        """Send the missing batches of a share through the model; the predictions are saved in shards.

        Args:
            share: its number.
            num_shares: the number of shares.
            device: the number of the GPU, if there are several.
            count: called after every batch with the number of prompts read.
            told_to_end: returns whether the user wants the pass to end.
        """
        network, tokenizer = self.load(), self.model.load_tokenizer()
        if share == 0 and self.scorer.token_features:
            self._announce_token_features(state_width(network))
        side = "right" if network.config.is_encoder_decoder else "left"
        pad = cast(int, tokenizer.pad_token_id)
        loader = PromptBatches(self.encoded, self.missing(share, num_shares), pad, side).loader()
        writer = ShardWriter(self.shards, self.scorer.shard_size, count, told_to_end)
        trainer = self.trainer.build(self.directory, device, callbacks=[writer])
        halved = partial(self._note_halved, share, num_shares)
        with closing(ScoringModule(network, self.scorer, end_tokens(network, tokenizer), halved)) as module:
            trainer.predict(module, loader, return_predictions=False)

    def _note_halved(self, share: int, num_shares: int, most_tokens: int) -> None:
        """Record next to the scores that batches were smaller than requested: in 16 bits this affects the scores."""
        note = {"tokens_per_batch": self.scorer.tokens_per_batch, "lowered_to": most_tokens}
        name = f"out_of_memory_{share + 1}_of_{num_shares}.json"
        write_atomic(self.directory / name, json.dumps(note) + "\n")

    def _planned(self, share: int, num_shares: int) -> Sequence[Int64[np.ndarray, " b"]]:
        scorer = self.scorer
        return plan_batches(self.encoded.lengths, scorer.max_new_tokens, scorer.tokens_per_batch)[share::num_shares]

    def _progress(self, share: int, num_shares: int) -> Progress:
        total = sum(map(len, self._planned(share, num_shares)))
        what = "score" if num_shares == 1 else f"score, share {share + 1} of {num_shares}"
        return Progress(what, total, "prompt", done=total - sum(map(len, self.missing(share, num_shares))))

    def _announce_token_features(self, state_width: int) -> None:
        spec, lengths = self.scorer.token_features, self.encoded.lengths
        assert spec
        longest = lengths if spec.source == "prompt" else np.full_like(lengths, self.scorer.max_new_tokens)
        count, width = int(np.minimum(longest, spec.max_tokens).sum()), min(state_width, spec.projection)
        most = "" if spec.source == "prompt" else "up to "
        size = f"{most}{count:,} token vectors of {width} dimensions, {most}{4e-9 * count * width:.2g} GB"
        log.info("keeping %s in %s", size, self.directory)


class ShardWriter(Callback):
    """Saves the predictions every `shard_size` prompts, or when told to end, and reports the progress of the pass.

    Args:
        shards: where they are saved.
        shard_size: prompts between two saves.
        count: takes the number of prompts of every batch.
        told_to_end: returns whether the user wants the pass to end.
    """

    def __init__(
        self, shards: Shards, shard_size: int, count: Callable[[int], object], told_to_end: Callable[[], bool]
    ) -> None:
        self._buffer, self._count, self._told_to_end = ShardBuffer(shards, shard_size), count, told_to_end

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the signals of a batch; save if there are enough, or when told to end: Lightning would not stop."""
        self._buffer.add({name: values.numpy() for name, values in outputs.items()})
        self._count(len(outputs["rows"]))
        interrupted = self._told_to_end()
        if interrupted or trainer.received_sigterm or self._buffer.full:
            self._buffer.save()
        if interrupted:
            raise KeyboardInterrupt
        if trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the remaining signals."""
        self._buffer.save()
