"""The stages of an experiment. Read this file second, after `aliquot.types`.

    Prepare -> Score -> Select -> Annotate -> Finetune -> Evaluate
           -> Overlap -------------------------------->
           -> ReadTarget -> Score -> Select, for a strategy that chooses toward a target
           -> ReadResponses, in place of Score, for an upper reference alone

In several rounds, Score, Select, Annotate and Finetune repeat; see `aliquot.experiment.rounds`:

    Finetune -> Score, with the last round's adapter -> Select, continued -> Annotate, what is new
    Annotate -> ReadBought -> Select, for a strategy that learns from what was bought

A stage says what its result depends on (its fields), how to compute it (`build`) and how to read it back (`load`).
A strategy that ranks the pool in parts has a SelectPart for each part before its Select.
gamma, budget and seed never reach the key of Score; the finetuning recipe never reaches the key of Select.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from jaxtyping import Float64

from aliquot.annotation.annotator import Annotator, digest_of, load_annotated, save_annotated
from aliquot.annotation.bill import Bill
from aliquot.annotation.quality import Quality
from aliquot.annotation.teachers.examples import Shown, choose, examples_of, load_examples, save_examples
from aliquot.annotation.teachers.teacher import Teacher
from aliquot.config.schema import Limit
from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.held_out.overlap import NOT_COMPARED, Compared, compare
from aliquot.evaluation.held_out.run import ROWS_FILE
from aliquot.evaluation.held_out.source import HeldOutSource
from aliquot.evaluation.judge.spec import Judge, Opponent
from aliquot.evaluation.prequential import load_bought, read_bought
from aliquot.evaluation.response_signals import load_signals, read_signals
from aliquot.evaluation.run import Yardstick, check_evaluable, evaluate, load_result
from aliquot.finetuning.recipe import RECORD as TRAINING_RECORD
from aliquot.finetuning.recipe import LoRA
from aliquot.finetuning.run import check_trainable, finetune, load_adapter, take_part
from aliquot.models.spec import Model
from aliquot.pools.cleaning import PoolReport
from aliquot.pools.prepare import load_prepared, prepare
from aliquot.pools.spec import PoolSpec
from aliquot.pools.target import TargetFile, prepare_target
from aliquot.runtime.progress import unheard
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.run import load_scores, normalized_alike, score, score_share
from aliquot.scoring.shards import save_arrays
from aliquot.scoring.spec import Scorer
from aliquot.selection.cost import rank_within, with_reserve
from aliquot.selection.greedy.checkpoint import Workspace, clear
from aliquot.selection.strategy import Learner, Partitioned, Strategy, as_read, on_kept_view, rank, view_of
from aliquot.selection.upper_reference import READS_RESPONSES, UpperReference, rank_with_responses
from aliquot.store.store import Check, OnMetrics, Stage, Store, write_atomic
from aliquot.terms import BEYOND, Purchase, Terms, pay_people
from aliquot.types import Adapter, AnnotatedSet, Bought, EvalResult, Pool, ResponseSignals, Scores, Selection, Target

if TYPE_CHECKING:
    from aliquot.scoring.shares import Load

log = logging.getLogger(__name__)

_SELECTION = "selection.npz"
_RANKING = "ranking"  # the directory of an unfinished ranking
_BILL, _QUALITY, _EXAMPLES = "bill.json", "quality.html", "examples.jsonl"
_RESERVE = 1.5  # rows of a ranking within a budget in money or tokens, relative to those that are expected to fit
#: The directory of a store that holds the responses of teachers.
LEDGER = "ledger"


@dataclass(frozen=True)
class Prepare(Stage[Pool]):
    """Read the pool's source once, drop unwanted rows, and save the prompts in a form that loads at once.

    After that, the stages that read the pool depend on the prompts alone. Adding a column of responses to the source,
    or reaching the same prompts in another way, does not cause a second scoring pass.

    Args:
        source: where the rows come from.
        without: a benchmark whose questions must not be in the pool, or None.
        digest: of the prompts that are left, once it is known (`settled`).
    """

    name: ClassVar[str] = "pool"
    version: ClassVar[int] = 3

    source: PoolSpec
    without: Yardstick | None = None
    digest: str | None = field(default=None, metadata={"key": False})

    @property
    def resources(self) -> None:
        return None

    def title(self) -> str:
        return f"pool: read the prompts of '{self.source.name}', without their responses"

    def as_input(self) -> dict[str, object]:
        return {"stage": self.name, "digest": self.digest} if self.digest else super().as_input()

    def settled(self, store: Store) -> Prepare:
        """Return the stage with the digest of its prompts; prepares the pool if necessary."""
        store.ensure(self)
        return replace(self, digest=self.report(store).digest)

    def checks(self) -> Sequence[Check]:
        return ((type(self.without).check, self.without),) if self.without else ()

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        prepare(self.source, directory, _questions(self.without))

    def load(self, directory: Path) -> Pool:
        return load_prepared(directory, self.source.name)

    def report(self, store: Store) -> PoolReport:
        """Return the report of the dropped rows, once the pool is prepared."""
        return PoolReport.read(store.directory(self))


@dataclass(frozen=True)
class ReadTarget(Prepare):
    """Read the prompts of the kind that the model will be asked, and look for them in the pool."""

    name: ClassVar[str] = "target"
    version: ClassVar[int] = 1

    source: TargetFile
    pool: Prepare = field(kw_only=True)

    def title(self) -> str:
        return f"target: read the prompts of {self.source.path}, and look for them in the pool"

    def checks(self) -> Sequence[Check]:
        return ((type(self.source).check, self.source),)

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        prepare_target(self.source, store.get(self.pool), directory)


def _questions(benchmark: Yardstick | None) -> Sequence[str]:
    """Return the text of every question of a benchmark; empty without a benchmark."""
    if isinstance(benchmark, Benchmark):
        from aliquot.evaluation.harness.tasks import read_questions  # importing lm-eval takes seconds

        return read_questions(benchmark)
    return benchmark.questions() if benchmark else ()


@dataclass(frozen=True)
class Score(Stage[Scores]):
    """Run the one inference pass over the whole pool; in a later round, with the adapter of the round before."""

    name: ClassVar[str] = "score"

    model: Model
    pool: Prepare
    scorer: Scorer
    trainer: TrainerSpec = field(metadata={"key": False})
    num_prompts: int = field(metadata={"key": False})  # the size of the pool, for the plan
    adapter: Finetune | None = field(default=None, metadata={"absent": None})

    def inputs(self) -> dict[str, object]:
        """Add the batch composition for 16-bit arithmetic, where it affects the signals."""
        in_16_bits = self.model.dtype != "float32"
        return super().inputs() | ({"tokens_per_batch": self.scorer.tokens_per_batch} if in_16_bits else {})

    def only(self, strategy: Strategy) -> Score:
        """Return the pass that keeps only the view that a strategy reads; it names it in the strategy's key."""
        return replace(self, scorer=self.scorer.only(view_of(strategy)))

    def title(self) -> str:
        kept = self.scorer.token_features
        tokens = f", keep vectors of {kept.max_tokens} {kept.source} tokens" if kept else ""
        prompts = f"{self.num_prompts:,} {'target ' * isinstance(self.pool, ReadTarget)}prompts"
        generated = f"generate up to {self.scorer.max_new_tokens} tokens each"
        again = f" after {self.adapter.annotate.about} annotations" if self.adapter else ""
        return f"score: read {prompts}{again}, {generated}{tokens}{self.trainer.several()}"

    def size(self) -> float:
        return self.num_prompts

    def checks(self) -> Sequence[Check]:
        return ((type(self.model).check_here, self.model),)

    def check_devices(self) -> None:
        self.trainer.check()

    def assist(self, store: Store, directory: Path) -> None:
        if self.trainer.place().rank > 0:
            # The adapter is asked for when this process reads: before, the first process may still be saving it.
            def load() -> Any:
                return _loader(self.model, self.adapter, store)()

            score_share(self.model, store.get(self.pool), self.scorer, self.trainer, directory, load)

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        load = _loader(self.model, self.adapter, store)
        score(self.model, store.get(self.pool), self.scorer, self.trainer, directory, load)

    def load(self, directory: Path) -> Scores:
        return load_scores(directory)


def _loader(model: Model, finetune: Finetune | None, store: Store) -> Load:
    """Return what loads the network, with the adapter of a training if there is one."""
    if finetune is None:
        return model.load
    from aliquot.finetuning.adapter import load_finetuned  # importing torch takes seconds

    return partial(load_finetuned, model, store.get(finetune))


@dataclass(frozen=True)
class ReadResponses(Stage[ResponseSignals]):
    """Read the response to every prompt of the pool with the base model, for an upper reference.

    Nothing is bought: the annotator must have answered the whole pool before. The key holds the responses, by digest or
    by the source that has them, and not who gave them.

    Args:
        model: the base model.
        pool: the prompts.
        annotator: has answered them.
        trainer: names the device.
        tokens_per_batch: padding and responses included; in the key for 16-bit arithmetic only, as in `Score`.
        num_prompts: the size of the pool, for the plan.
        digest: of the responses, once they are known to be complete (`settled`); None if the pool's source has them.
    """

    name: ClassVar[str] = "responses"

    model: Model
    pool: Prepare
    annotator: Annotator = field(metadata={"key": False})
    trainer: TrainerSpec = field(metadata={"key": False})
    tokens_per_batch: int = field(metadata={"key": False})
    num_prompts: int = field(metadata={"key": False})
    digest: str | None = None

    @property
    def resources(self) -> str:
        return Score.name

    def inputs(self) -> dict[str, object]:
        inputs = super().inputs() | ({"source": self.pool.source.bare()} if self.annotator.reads_source else {})
        in_16_bits = self.model.dtype != "float32"
        return inputs | ({"tokens_per_batch": self.tokens_per_batch} if in_16_bits else {})

    def title(self) -> str:
        by = self.annotator.name
        return f"responses: read all {self.num_prompts:,} responses of {by}{self.trainer.one_of_several()}"

    def size(self) -> float:
        return self.num_prompts

    def checks(self) -> Sequence[Check]:
        source, reads_source = self.pool.source, self.annotator.reads_source
        first: list[Check] = [(type(source).check_responses, source, True)] if reads_source else []
        return *first, (type(self.model).check_here, self.model)

    def check_devices(self) -> None:
        replace(self.trainer, devices=1, num_nodes=1).check()

    def settled(self, store: Store) -> ReadResponses:
        """Return the stage with the digest of the responses.

        Raises:
            ValueError: the annotator has not answered the whole pool.
        """
        if self.annotator.reads_source and store.record(self):
            return self
        digest = digest_of(self._responses(store))
        return self if self.annotator.reads_source else replace(self, digest=digest)

    def _responses(self, store: Store) -> list[tuple[str, str]]:
        """Return the id of each prompt of the pool and the response to it.

        Raises:
            ValueError: one is missing.
        """
        pool, annotator = store.get(self.pool), self.annotator
        ids, prompts = list(pool.ids), list(pool.prompts)
        known = annotator.answered(self.pool.source, ids, prompts, store.root / LEDGER)
        if missing := [row_id for row_id in ids if row_id not in known]:
            raise ValueError(
                f"a strategy that reads responses needs all {len(ids):,} of pool '{pool.name}' before it chooses, and "
                f"{annotator.name} has given {len(ids) - len(missing):,} of use (none to id '{missing[0]}'); nothing "
                "is bought for it: let the whole pool be annotated first (strategy=random budget=all until=annotate), "
                "leave the others out of the pool, or choose a strategy that reads prompts only"
            )
        return [(row_id, known[row_id]) for row_id in ids]

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        found = self._responses(store)
        if self.digest not in (None, digest_of(found)):
            raise ValueError(f"the responses of {self.annotator.name} changed as the run started; run it again")
        responses = [response for _, response in found]
        read_signals(self.model, store.get(self.pool), responses, self.trainer, self.tokens_per_batch, directory)

    def load(self, directory: Path) -> ResponseSignals:
        return load_signals(directory)


@dataclass(frozen=True)
class SelectPart(Stage[Selection]):
    """Rank one part of the pool, for the second round of Select. Parts can be built in parallel."""

    name: ClassVar[str] = "select_part"

    pool: Prepare
    strategy: Partitioned
    score: Score | None
    budget: int
    part: int
    trainer: TrainerSpec = field(metadata={"key": False})

    @property
    def resources(self) -> str:
        return Select.name

    def inputs(self) -> dict[str, object]:
        return {**super().inputs(), "score": self.score and self.score.only(self.strategy)}

    def title(self) -> str:
        return f"select: part {self.part + 1} of {self.strategy.num_parts}, by {type(self.strategy).__name__}"

    def size(self) -> float:
        return self.budget

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        pool, strategy = store.get(self.pool), self.strategy
        if self.score:
            strategy = cast(Partitioned, on_kept_view(strategy, self.score.scorer))
        scores = as_read(strategy, pool, store.get(self.score) if self.score else None)
        workspace = Workspace(directory / _RANKING, self.trainer.device())
        _save_selection(strategy.select_part(pool, scores, self.part, self.budget, workspace), directory)

    def load(self, directory: Path) -> Selection:
        return load_selection(directory)


@dataclass(frozen=True)
class Select(Stage[Selection]):
    """Rank the pool to the depth of the budget.

    One ranking serves every smaller budget if the strategy is nested. Then the budget is not part of the key, and a
    later, larger budget continues from it in the same directory.

    A budget in money or tokens has a ranking of its own. It goes beyond what is expected to fit, and further if even
    that turns out too cheap (`reserve`).

    Args:
        budget: prompts; an estimate for a budget in money or tokens, and not part of the key then.
        target: the pass over the prompts that the model will be asked, for a strategy that chooses toward them; its
            features are raw.
        responses: what the base model makes of the responses, for an upper reference.
        before: what earlier rounds bought: those prompts stay, and come first.
        bought: how well these responses were predicted, for a strategy that learns from it.
        terms: of a budget in money or tokens, or None.
        reserve: rows that the ranking of such a budget must have at least.
    """

    name: ClassVar[str] = "select"

    pool: Prepare
    strategy: Strategy | UpperReference
    score: Score | None
    budget: int
    trainer: TrainerSpec = field(metadata={"key": False})
    target: Score | None = field(default=None, metadata={"absent": None})
    responses: ReadResponses | None = field(default=None, metadata={"absent": None})
    before: Annotate | None = field(default=None, metadata={"absent": None})
    bought: ReadBought | None = field(default=None, metadata={"absent": None})
    terms: Terms | None = field(default=None, metadata={"absent": None})
    reserve: int = field(default=0, metadata={"key": False})

    def inputs(self) -> dict[str, object]:
        """Name only the view that the strategy reads: what else the pass keeps does not matter.

        Of what was bought before, only which prompts that were matters. How many a budget in money or tokens bought
        depends on the responses.
        """
        strategy, budget = self.strategy, None if self.strategy.nested or self.terms else self.budget
        score = self.score.only(strategy) if self.score and not isinstance(strategy, UpperReference) else None
        target: dict[str, object] = {}
        if self.target and not isinstance(strategy, UpperReference):
            target = {"target": {"prompts": self.target.pool, "score": self.target.only(strategy)}}
        before: dict[str, object] = {}
        if self.before and not self.terms:
            before = {"before": {"select": self.before.select, "budget": self.before.budget}}
        elif self.before and self.before.annotator.waits:  # prices of people are known before they answer
            before = {"before": {"select": self.before.select, "budget": str(self.before.limit)}}
        terms = {"terms": self.terms.as_key()} if self.terms else {}
        return {**super().inputs(), "budget": budget, "score": score, **target, **before, **terms}

    def parts(self) -> list[SelectPart]:
        """Return the stages of the first round; none for a strategy with one round."""
        strategy = self.strategy
        if not isinstance(strategy, Partitioned) or strategy.num_parts == 1:
            return []
        parts = range(strategy.num_parts)
        return [SelectPart(self.pool, strategy, self.score, self.budget, part, self.trainer) for part in parts]

    def upstream(self) -> list[Stage[Any]]:
        return [*super().upstream(), *self.parts()]

    def title(self) -> str:
        reads = f" {READS_RESPONSES}" if isinstance(self.strategy, UpperReference) else ""
        start = f"continue from {self.before.about} to" if self.before else "rank"
        within = f" within {self.terms.limit}" if self.terms else ""
        return f"select: {start} {self.about} prompts{within} by {type(self.strategy).__name__}{reads}"

    @property
    def about(self) -> str:
        """The number of prompts for titles."""
        return f"{'about ' if self.terms else ''}{self.budget:,}"

    def size(self) -> float:
        return self.budget

    @property
    def depth(self) -> int:
        return self.reserve if self.terms else self.budget

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        strategy = self.strategy
        start = load_selection(directory) if (directory / _SELECTION).exists() else None  # a shallower ranking
        if start is None and self.before:
            self.before.pin(store)
            start = store.get(self.before.select).head(self.before.num_rows(store))
        if isinstance(strategy, UpperReference):
            assert self.responses is not None
            signals = store.get(self.responses)
            _save_selection(rank_with_responses(strategy, store.get(self.pool), signals, self.budget, start), directory)
            return
        strategy, scores = self.signals(store)
        if self.bought and isinstance(strategy, Learner):
            strategy = strategy.after(store.get(self.bought))
        workspace = Workspace(directory / _RANKING, self.trainer.device())
        if self.terms:
            self._rank_within(self.terms, strategy, scores, start, store, directory)
            return
        if parts := self.parts():
            from aliquot.selection.greedy.distributed import give_parts  # numba and torch: too slow to compose a config

            give_parts([store.get(part) for part in parts], workspace)
        _save_selection(rank(strategy, store.get(self.pool), scores, self.budget, start, workspace), directory)

    def _rank_within(
        self,
        terms: Terms,
        strategy: Strategy,
        scores: Scores | None,
        start: Selection | None,
        store: Store,
        directory: Path,
    ) -> None:
        """Rank what is expected to fit, and then as far as the reserve goes; `start` may be a shorter such ranking."""
        pool, workspace = store.get(self.pool), Workspace(directory / _RANKING, self.trainer.device())
        costs = terms.expected_costs(pool, scores)
        if self.before and not self.before.annotator.waits:  # what was bought says how far the estimates are off
            rows = store.get(self.before.select).head(self.before.num_rows(store)).indices
            bill = self.before.bill(store)
            costs *= bill.spent / costs[rows].sum() if bill and bill.spent else 1
        if start and (directory / _SELECTION).exists():
            within, num_fitting = start, self.num_fitting(store)
        else:
            amount, aware = terms.limit.amount, terms.cost_aware
            within = rank_within(strategy, pool, scores, costs, amount, aware, start, workspace)
            num_fitting = len(within)
        depth = min(len(pool), max(self.reserve, math.ceil(_RESERVE * num_fitting)))
        if depth > len(within):
            with unheard("aliquot.selection"):  # it repeats what the ranking has said
                within = with_reserve(strategy, pool, scores, within, costs, depth, terms.cost_aware, workspace)
        _save_selection(within, directory, costs=costs[within.indices], num_fitting=np.array(num_fitting))

    def num_fitting(self, store: Store) -> int:
        """Return how many rows of a ranking within a budget in money or tokens are expected to fit."""
        with np.load(store.directory(self) / _SELECTION, allow_pickle=False) as arrays:
            return int(arrays["num_fitting"])

    def expected_costs(self, store: Store) -> Float64[np.ndarray, " k"]:
        """Return the expected cost of each row of such a ranking, in its order."""
        with np.load(store.directory(self) / _SELECTION, allow_pickle=False) as arrays:
            return arrays["costs"]

    def signals(self, store: Store) -> tuple[Strategy, Scores | None]:
        """Return the strategy, with its view named as in its scores, and these, with those of the target."""
        strategy = self.strategy
        assert isinstance(strategy, Strategy)
        if self.score is None:
            return strategy, None
        strategy, scores = on_kept_view(strategy, self.score.scorer), store.get(self.score)
        if self.target is None:
            return strategy, scores
        alike = normalized_alike(store.get(self.target), store.directory(self.score), self.score.scorer)
        return strategy, replace(scores, target=Target(store.get(self.target.pool), alike))

    def load(self, directory: Path) -> Selection:
        ranking = load_selection(directory)
        return ranking if self.terms else ranking.head(self.budget)


def _save_selection(selection: Selection, directory: Path, **more: np.ndarray) -> None:
    save_arrays(directory / _SELECTION, {**vars(selection), **more})
    clear(directory / _RANKING)


def load_selection(directory: Path) -> Selection:
    """Return the whole ranking that a Select or SelectPart saved in its directory."""
    with np.load(directory / _SELECTION, allow_pickle=False) as arrays:
        return Selection(arrays["indices"], arrays["gains"])


@dataclass(frozen=True)
class Annotate(Stage[AnnotatedSet]):
    """Buy the responses to the first `budget` prompts of a ranking, or as far down as money or tokens go.

    Args:
        select: the ranking; its terms are those of a budget in money or tokens.
        annotator: the source of the responses.
        budget: how many prompts; an estimate for a budget in money or tokens, and not part of the key then.
        digest: of the responses that people have returned, once all are there (`settled`): the stages that read them
            depend on their content, not on when they came or in how many files.
        num_before: how many of the prompts earlier rounds asked for.
        score: the base model's pass, whose features say which prompts of earlier rounds are the nearest; None unless a
            teacher is shown these.
    """

    name: ClassVar[str] = "annotate"

    select: Select
    annotator: Annotator
    budget: int
    digest: str | None = field(default=None, metadata={"absent": None})
    num_before: int = field(default=0, metadata={"key": False})
    score: Score | None = field(default=None, metadata={"absent": None})

    @property
    def resources(self) -> str | None:
        return self.annotator.resources

    def inputs(self) -> dict[str, object]:
        """Add where an oracle reads the responses, and what a teacher is shown: the ranking depends on neither."""
        inputs = super().inputs() | ({"source": self.source.bare()} if self.annotator.reads_source else {})
        if self.score:
            inputs["score"] = replace(self.score, scorer=self.score.scorer.only(None))
            inputs["before"] = self.select.before
        return inputs | ({"budget": None} if self.limit else {})

    @property
    def limit(self) -> Limit | None:
        """The budget, if it is in money or tokens."""
        return self.select.terms.limit if self.select.terms else None

    @property
    def about(self) -> str:
        """The number of prompts for titles."""
        return f"{'about ' if self.limit else ''}{self.budget:,}"

    def num_rows(self, store: Store) -> int:
        """Return the number of prompts; an estimate for a budget in money or tokens that is not spent yet."""
        if self.limit is None:
            return self.budget
        if self.annotator.waits and store.record(self.select):
            return pay_people(self.annotator, *self._ranking(store), self.limit).num_rows
        bill = self.bill(store) if store.record(self) else None
        return bill.num_asked - bill.left_out.get(BEYOND, 0) if bill else self.budget

    @property
    def source(self) -> PoolSpec:
        """The source of the prompts; an oracle finds their responses there."""
        return self.select.pool.source

    def title(self) -> str:
        before, most = self.select.before, f", for {self.limit} at most" if self.limit else ""
        shown = f", shown the nearest of {before.budget:,}" if self.score and before else ""
        return f"annotate: {self.about} responses from {self.annotator.name}{most}{shown}"

    def size(self) -> float:
        return self.budget

    def checks(self) -> Sequence[Check]:
        return ((type(self.annotator).check, self.annotator, self.source),)

    def settled(self, store: Store, another_follows: bool = False) -> Annotate:
        """Return the stage with the digest of what people have returned; without one while prompts still wait.

        Once the prompts of the next round are chosen, those of this one keep the responses that they were chosen with:
        a response that is corrected later is trained on in the next round, and does not ask for other prompts.
        """
        if not self.annotator.waits or store.record(self.select) is None:
            return self
        if another_follows and self._pin(store).exists():
            pinned = replace(self, digest=self._pin(store).read_text(encoding="utf-8").strip())
            if store.record(pinned):
                return pinned
        if self.num_before and self.annotator.digest(*self.new_request(store)) is None:
            return self  # it may continue without some responses, but not without any of this round
        return replace(self, digest=self.annotator.digest(*self.request(store)))

    def pin(self, store: Store) -> None:
        """Keep the digest for `settled`, now that later prompts depend on these responses."""
        if self.digest:
            write_atomic(self._pin(store), self.digest + "\n")

    def _pin(self, store: Store) -> Path:
        return store.directory(replace(self, digest=None)) / "pinned.txt"

    def waits(self) -> bool:
        """Tell whether people have to answer before this stage can be done."""
        return self.annotator.waits and self.digest is None

    def request(self, store: Store) -> tuple[list[str], list[str]]:
        """Return the ids and the texts of the prompts, in the order selected."""
        ids, prompts = self._ranking(store)
        return ids[: self.num_rows(store)], prompts[: self.num_rows(store)]

    def _ranking(self, store: Store) -> tuple[list[str], list[str]]:
        """Return the ids and the texts of the ranked prompts, those that may not be bought included."""
        rows: list[int] = store.get(self.select).indices.tolist()
        pool = store.get(self.select.pool)
        return [pool.ids[i] for i in rows], [pool.prompts[i] for i in rows]

    def new_request(self, store: Store) -> tuple[list[str], list[str]]:
        """Return those that no earlier round asked for."""
        ids, prompts = self.request(store)
        before = self.select.before.num_rows(store) if self.limit and self.select.before else self.num_before
        return ids[before:], prompts[before:]

    def open_request(self, store: Store) -> tuple[list[str], list[str]]:
        """Return what people are asked now: the new prompts or, if all these are answered, the earlier ones too."""
        new = self.new_request(store)
        return self.request(store) if self.annotator.digest(*new) else new

    def _buy(self, store: Store) -> Purchase:
        """Buy as far as the budget goes, down a deeper ranking if this one turns out too short for it."""
        if self.limit is None:
            return Purchase(self.budget, self.budget, 0.0, "")
        num_prompts = len(store.get(self.select.pool))
        while True:
            ids, prompts = self._ranking(store)
            assert self.select.terms
            expected, ledger = self.select.expected_costs(store), store.root / LEDGER
            bought = self.select.terms.buy(self.annotator, self.source, ids, prompts, ledger, expected)
            if bought.why or len(ids) == num_prompts:
                return replace(bought, why=bought.why or f"all {num_prompts:,} prompts of the pool are bought")
            store.ensure(replace(self.select, reserve=min(num_prompts, math.ceil(_RESERVE * len(ids)))))

    def _billed(self, annotator: Annotator, bought: Purchase, store: Store) -> Bill:
        """Return the bill of what was bought; responses to rows that do not fit into a budget in tokens cost, too."""
        ids, prompts = self._ranking(store)

        def billed(rows: int) -> Bill:
            return annotator.bill(ids[:rows], prompts[:rows], store.root / LEDGER)

        used, beyond = billed(bought.num_trained), bought.num_rows - bought.num_trained
        if self.limit is None:
            return used
        everything = billed(bought.num_rows) if beyond else used
        spent = bought.spent if self.limit.in_tokens else used.cost
        if spent > self.limit.amount * (1 + 1e-9):
            log.warning("%s was spent of a budget of %s: more was charged than can be asked for", spent, self.limit)
        left_out = {**used.left_out, **({BEYOND: beyond} if beyond else {})}
        bill = replace(everything, num_responses=used.num_responses, left_out=left_out)
        left = max(self.limit.amount - spent, 0)
        log.info("budget=%s: %.10g used and %.10g left: %s", self.limit, round(spent, 9), round(left, 9), bought.why)
        return replace(bill, limit=str(self.limit), spent=spent, why_left=bought.why)

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        bought = self._buy(store)
        ids, prompts = self._ranking(store)  # it may be deeper now
        ids, prompts = ids[: bought.num_trained], prompts[: bought.num_trained]
        annotator = self.annotator
        if isinstance(annotator, Teacher) and self.score:
            annotator = replace(annotator, shown=self.shown(store))
        annotated = annotator.annotate(self.source, ids, prompts, store.root / LEDGER)
        bill = self._billed(annotator, bought, store)
        doubled = annotator.doubled(ids, prompts)
        if self.annotator.waits:
            read = digest_of(zip(annotated.ids, annotated.responses, strict=True))
            if read != self.digest or bill.num_responses != len(annotated):
                by = self.annotator.name
                raise ValueError(f"the responses of {by} changed as the run started; run the same command again")
        bill.write(directory / _BILL)
        write_atomic(directory / _QUALITY, Quality.of(bill.by, annotated, bill.left_out, doubled).page())
        save_annotated(annotated, directory / "annotated.jsonl")

    def shown(self, store: Store) -> Shown:
        """Return what a teacher is shown before each prompt of the later rounds, this one and those before it.

        A prompt is asked as it was the first time: so no prompt has itself, or an equal one, among its examples.
        """
        before = self.select.before
        if not isinstance(self.annotator, Teacher) or self.score is None or before is None:
            return {}
        old, known = set(before.request(store)[1]), examples_of(store.get(before))
        ids, prompts = self.request(store)
        new = {prompt: row_id for row_id, prompt in zip(ids, prompts, strict=True) if prompt not in old}
        file = store.directory(self) / _EXAMPLES
        if not file.exists():  # an interrupted stage asks the same questions when it continues
            rows: list[int] = store.get(self.select).head(self.budget).indices.tolist()
            row_of, features = dict(zip(ids, rows, strict=True)), store.get(self.score).features
            asked, among = ({i: row_of[i] for i in some} for some in (new.values(), known))
            save_examples(choose(features, asked, among, self.annotator.examples), file)
        chosen = load_examples(file)
        shown = {prompt: [known[i] for i in chosen[row_id]] for prompt, row_id in new.items()}
        return {**before.shown(store), **shown}

    def bill(self, store: Store) -> Bill | None:
        """Return what the responses cost, once they exist; None for a store that predates bills."""
        file = store.directory(self) / _BILL
        return Bill.read(file) if file.exists() else None

    def quality(self, store: Store) -> str | None:
        """Return the page with statistics of the responses, once they exist; None for a store that predates it."""
        file = store.directory(self) / _QUALITY
        return file.read_text(encoding="utf-8") if file.exists() else None

    def load(self, directory: Path) -> AnnotatedSet:
        return load_annotated(directory / "annotated.jsonl")


@dataclass(frozen=True)
class ReadBought(Stage[Bought]):
    """Read the responses that one round bought, before any model is trained on them.

    Args:
        model: the base model.
        annotate: the prompts of this round and of all before.
        adapter: trained on the responses of all rounds before this one; None in the first round.
        earlier: the same stage of the round before; None in the first.
        trainer: names the device.
        tokens_per_batch: padding and responses included; in the key for 16-bit arithmetic only, as in `Score`.
    """

    name: ClassVar[str] = "bought"

    model: Model
    annotate: Annotate
    adapter: Finetune | None
    earlier: ReadBought | None
    trainer: TrainerSpec = field(metadata={"key": False})
    tokens_per_batch: int = field(metadata={"key": False})

    @property
    def resources(self) -> str:
        return Evaluate.name

    def inputs(self) -> dict[str, object]:
        in_16_bits = self.model.dtype != "float32"
        return super().inputs() | ({"tokens_per_batch": self.tokens_per_batch} if in_16_bits else {})

    def title(self) -> str:
        about = "about " if self.annotate.limit else ""
        new = f"{about}{self._num_new:,} new responses"
        return f"bought: read {new} before training{self.trainer.one_of_several()}"

    @property
    def _num_new(self) -> int:
        return self.annotate.budget - (self.earlier.annotate.budget if self.earlier else 0)

    def size(self) -> float:
        return self._num_new

    def checks(self) -> Sequence[Check]:
        return ((type(self.model).check_here, self.model),)

    def check_devices(self) -> None:
        replace(self.trainer, devices=1, num_nodes=1).check()

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        earlier = store.get(self.earlier) if self.earlier else None
        old = set(store.get(self.earlier.annotate).ids) if self.earlier else set[str]()
        annotated, pool = store.get(self.annotate), store.get(self.annotate.select.pool)
        num_rows = self.annotate.num_rows(store)
        selected: list[int] = store.get(self.annotate.select).head(num_rows).indices.tolist()
        row_of = {pool.ids[row]: row for row in selected}
        new = [i for i, row_id in enumerate(annotated.ids) if row_id not in old]
        rows = np.array([row_of[annotated.ids[i]] for i in new], dtype=np.int64)
        load = _loader(self.model, self.adapter, store)
        read_bought(
            self.model, load, annotated.only(new), rows, earlier, self.trainer, self.tokens_per_batch, directory
        )

    def load(self, directory: Path) -> Bought:
        return load_bought(directory)


@dataclass(frozen=True)
class Finetune(Stage[Adapter]):
    """Train a LoRA adapter on the annotated prompts."""

    name: ClassVar[str] = "finetune"

    model: Model
    annotate: Annotate
    recipe: LoRA
    trainer: TrainerSpec = field(metadata={"key": False})

    def title(self) -> str:
        rows = f"{self.recipe.epochs} x {self.annotate.about} rows"
        return f"finetune: LoRA rank {self.recipe.rank}, {rows}{self.trainer.several()}"

    def size(self) -> float:
        return self.recipe.epochs * self.annotate.budget

    def checks(self) -> Sequence[Check]:
        return (type(self.model).check_here, self.model), (check_trainable, self.model, self.recipe)

    def check_devices(self) -> None:
        self.trainer.check()

    def assist(self, store: Store, directory: Path) -> None:
        if self.trainer.place().rank > 0:
            annotated, is_done = partial(store.get, self.annotate), lambda: store.record(self) is not None
            take_part(self.model, annotated, self.recipe, self.trainer, directory, is_done)

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        finetune(self.model, store.get(self.annotate), self.recipe, self.trainer, directory, on_metrics)

    def num_tokens(self, store: Store) -> int | None:
        """Return the tokens of the prompts and responses of a finished training, each counted once, if recorded."""
        record = json.loads((store.directory(self) / TRAINING_RECORD).read_text(encoding="utf-8"))
        return record["tokens"] // self.recipe.epochs if "tokens" in record else None

    def load(self, directory: Path) -> Adapter:
        return load_adapter(directory)


@dataclass(frozen=True)
class Overlap(Stage[Compared]):
    """Find the held-out rows whose prompt also stands in the pool."""

    name: ClassVar[str] = "overlap"

    pool: Prepare
    held_out: HeldOutSource

    @property
    def resources(self) -> None:
        return None

    def inputs(self) -> dict[str, object]:
        return {"pool": self.pool, "prompts": self.held_out.of_prompts(), "near": self.held_out.near}

    def title(self) -> str:
        return "overlap: look for the held-out rows in the pool"

    def checks(self) -> Sequence[Check]:
        return ((type(self.held_out).check, self.held_out),)

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        compare(self.held_out.rows(), store.get(self.pool), self.held_out.near).write(directory)

    def load(self, directory: Path) -> Compared:
        return Compared.read(directory)


@dataclass(frozen=True)
class Evaluate(Stage[EvalResult]):
    """Score the benchmarks, with the adapter of `finetune` or, without one, the base model.

    Args:
        overlap: what the pool has to do with held-out rows, where such are scored.
        opponent: for a judge, the evaluation whose responses this one's are compared with; of another run, its key.
    """

    name: ClassVar[str] = "evaluate"

    model: Model
    finetune: Finetune | None
    benchmark: Yardstick
    trainer: TrainerSpec = field(metadata={"key": False})
    overlap: Overlap | None = field(default=None, metadata={"absent": None})
    opponent: Evaluate | str | None = field(default=None, metadata={"absent": None})

    def inputs(self) -> dict[str, object]:
        """Leave out the model's example format if the benchmark does not use it, and a judge that is not asked."""
        reads_format = getattr(self.benchmark, "reads_format", True)
        inputs = super().inputs() | ({} if reads_format else {"model": self.model.bare()})
        if isinstance(self.benchmark, Judge) and not self.opponent:  # the judge is not asked
            inputs["benchmark"] = self.benchmark.of_responses()
        return inputs

    def upstream(self) -> list[Stage[Any]]:
        return super().upstream()[::-1]  # what may refuse held-out rows comes before what takes long

    def title(self) -> str:
        model, tasks = "finetuned" if self.finetune else "base", ", ".join(self.benchmark.tasks)
        return f"evaluate: {model} model on {tasks}{self.trainer.one_of_several()}"

    def checks(self) -> Sequence[Check]:
        checks: list[Check] = [(type(self.model).check_here, self.model), (check_evaluable, self.model, self.benchmark)]
        if isinstance(self.benchmark, Judge) and self.opponent:
            checks.append((type(self.benchmark.judge).check_reachable, self.benchmark.judge))
        return checks

    def check_devices(self) -> None:
        replace(self.trainer, devices=1, num_nodes=1).check()  # a separate job starts no processes for other devices

    def build(self, store: Store, directory: Path, on_metrics: OnMetrics) -> None:
        adapter = store.get(self.finetune) if self.finetune else None
        compared = store.get(self.overlap) if self.overlap else NOT_COMPARED
        opponent = None
        if self.opponent:
            key = self.opponent.key if isinstance(self.opponent, Evaluate) else self.opponent
            opponent = Opponent(store.root / self.name / key / ROWS_FILE, store.root / LEDGER)
        evaluate(self.model, adapter, self.benchmark, self.trainer, directory, compared, opponent)

    def load(self, directory: Path) -> EvalResult:
        return load_result(directory)
