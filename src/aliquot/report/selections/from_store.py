"""From the rankings, scores and pool of a store to the picks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aliquot.experiment.arm import score_of
from aliquot.pools.prepare import load_prepared
from aliquot.report.analysis.study import Arm, Study
from aliquot.report.selections import measures
from aliquot.report.selections.measures import Rows
from aliquot.report.selections.picks import Correlations, FeatureMap, Lengths, Nearness, Picks, TaskShares
from aliquot.scoring.features import gaussian_projection, project
from aliquot.scoring.normalization import Normalization
from aliquot.scoring.run import load_scores
from aliquot.scoring.spec import Scorer
from aliquot.selection.clustering import number_rows
from aliquot.selection.kernels import RBF, Cosine, mean_similarity
from aliquot.stages import load_selection
from aliquot.store.store import read_record
from aliquot.types import Pool, Scores

NUM_SAMPLED = 2000  # prompts of the pool, or picks of an arm, whose distances are measured
_STREAM = (0, 1)  # of random numbers: a strategy seeded with 0 must not pick the same sample
_NUM_EMBEDDED = 5000  # prompts over which a kernel's mean similarity is computed
_NUM_PROJECTED = 256  # dimensions beyond which distances are measured after a random projection
_NUM_BINS = 24
_KERNELS = {kernel.__name__: kernel for kernel in (RBF, Cosine)}


@dataclass(frozen=True)
class _Ranking:
    """A ranking in the store: serves every budget up to `depth` if it is nested, otherwise only that one."""

    arm: Arm
    replicate: str
    folder: Path
    score: str | None
    features: tuple[str | None, str]  # the view it reads, and how that is normalized
    depth: int
    nested: bool
    kernel: Mapping[str, Any] | None

    def serves(self, budget: int) -> bool:
        return budget <= self.depth if self.nested else budget == self.depth


def look_at_picks(root: Path, study: Study) -> Picks | None:
    """Measure the picks of a study's arms, one replicate each, at the largest budget that most of them have.

    Args:
        root: the store.
        study: the study that was read from it.

    Returns:
        None if no ranking, or not the pool, exists any more.
    """
    pool = _load_pool(root, study)
    if pool is None:
        return None
    rankings = _rankings(root, study)
    budget, serving = _at_common_budget(rankings)
    read = [(ranking, found) for ranking in serving if (found := _load_rows(ranking.folder, budget)) is not None]
    if not read:
        return None
    chosen, rows = [ranking for ranking, _ in read], [found for _, found in read]
    key = next((key for key, _ in Counter(r.score for r in rankings if r.score).most_common(1)), None)
    scores = _load_scores(root / "score" / key, len(pool)) if key else None
    features = _prepare_features(scores) if scores else None
    named = {ranking.arm.name for ranking in chosen}
    return Picks(
        budget=budget,
        num_prompts=len(pool),
        arms=tuple(ranking.arm for ranking in chosen),
        replicates=tuple(ranking.replicate for ranking in chosen),
        left_out=tuple(sorted({cell.arm.name for cell in study.cells} - named)),
        overlap=measures.jaccard(rows),
        tasks=_tasks(pool, rows) if pool.tasks is not None else None,
        lengths=_lengths(scores, rows) if scores else None,
        nearness=_nearness(features, rows) if features is not None and budget > 1 else None,
        correlations=_correlations(scores) if scores else None,
        map=_map(features, rows) if features is not None and min(features.shape) > 1 else None,
        similarity=_similarities(root, rankings, len(pool)),
    )


def _rankings(root: Path, study: Study) -> list[_Ranking]:
    """Return a ranking for each cell whose ranking still exists, those of the deepest cells of an arm first."""
    asked = {record.id: record.budget for record in study.records}
    keys = {record.id: {name: key for name, key, _ in record.stages} for record in study.records}
    found: list[_Ranking] = []
    for cell in sorted(study.cells, key=lambda cell: (cell.arm.strategy, cell.arm.name, -cell.budget)):
        folder = root / "select" / keys.get(cell.runs[0], {}).get("select", "none")
        if record := read_record(folder):
            fields = record["fields"]
            found.append(
                _Ranking(
                    arm=cell.arm,
                    replicate=cell.replicates[0],
                    folder=folder,
                    score=score_of(record),
                    features=(fields["strategy"].get("features"), fields["strategy"].get("normalize", "raw")),
                    depth=asked[cell.runs[0]] if fields.get("terms") else record["depth"],
                    nested=fields["budget"] is None,
                    kernel=fields["strategy"].get("kernel"),
                )
            )
    return found


def _at_common_budget(rankings: Sequence[_Ranking]) -> tuple[int, list[_Ranking]]:
    """Return the budget that covers most arms, the largest of these in a tie, and a ranking for each arm."""
    best: tuple[int, list[_Ranking]] = (0, [])
    for budget in sorted({ranking.depth for ranking in rankings}):
        serving: dict[str, _Ranking] = {}
        for ranking in rankings:
            if ranking.serves(budget):
                serving.setdefault(ranking.arm.name, ranking)
        if len(serving) >= len(best[1]):
            best = budget, list(serving.values())
    return best


def _load_pool(root: Path, study: Study) -> Pool | None:
    key = next((key for record in study.records for name, key, _ in record.stages if name == "pool"), "none")
    try:
        return load_prepared(root / "pool" / key, study.name)
    except FileNotFoundError:
        return None


def _load_rows(folder: Path, budget: int) -> Rows | None:
    try:
        return load_selection(folder).indices[:budget]
    except FileNotFoundError:  # deleted to make room
        return None


def _load_scores(folder: Path, num_prompts: int) -> Scores | None:
    try:
        scores = load_scores(folder)
    except FileNotFoundError:
        return None
    return scores if len(scores) == num_prompts else None


def _prepare_features(scores: Scores) -> Float32[np.ndarray, "n d"]:
    """Return centered features in float32 with few dimensions: distances do not change under a shift, rounding does."""
    stored = scores.features
    wide = stored.shape[1] > _NUM_PROJECTED
    features = project(stored, gaussian_projection(stored.shape[1], _NUM_PROJECTED, 0)) if wide else stored
    centered = np.array(features, dtype=np.float32)
    centered -= centered.mean(axis=0, dtype=np.float64).astype(np.float32)
    return centered


def _sample(num_rows: int, most: int) -> Rows:
    return np.random.default_rng(_STREAM).permutation(num_rows)[:most]


def _tasks(pool: Pool, rows: Sequence[Rows]) -> TaskShares:
    names, labels = np.unique(np.asarray(pool.tasks, dtype=object).astype(str), return_inverse=True)
    of_pool = measures.shares(labels, len(names))
    order = np.argsort(-of_pool, kind="stable")
    picked = np.stack([measures.shares(labels[chosen], len(names))[order] for chosen in rows])
    return TaskShares(tuple(names[order].tolist()), of_pool[order], picked)


def _lengths(scores: Scores, rows: Sequence[Rows]) -> Lengths:
    lengths = np.asarray(scores.prompt_lengths)
    shortest, long = int(lengths.min()), int(np.quantile(lengths, 0.99))
    width = -(-(long - shortest + 1) // _NUM_BINS)  # whole tokens, rounded up: all bins hold as many lengths
    num_bins = -(-(long - shortest + 1) // width)
    bins = np.minimum((lengths - shortest) // width, num_bins - 1)
    return Lengths(
        edges=shortest - 0.5 + width * np.arange(num_bins + 1),
        pool=measures.shares(bins, num_bins),
        picked=np.stack([measures.shares(bins[chosen], num_bins) for chosen in rows]),
        pool_mean=float(lengths.mean()),
        means=np.array([lengths[chosen].mean() for chosen in rows]),
    )


def _nearness(features: Float32[np.ndarray, "n d"], rows: Sequence[Rows]) -> Nearness:
    sample = _sample(len(features), NUM_SAMPLED)
    unit = measures.typical_distance(features, sample)
    labels = number_rows(features)
    within = [measures.distances_within(features, chosen, _sample(len(chosen), NUM_SAMPLED // 4)) for chosen in rows]
    return Nearness(
        measures.distances_to_nearest(features, sample, rows) / unit,
        [distances / unit for distances in within],
        np.array([measures.duplicate_share(labels, chosen) for chosen in rows]),
    )


def _correlations(scores: Scores) -> Correlations | None:
    signals = measures.signals(scores)
    if len(signals) < 2:
        return None
    return Correlations(tuple(signals), measures.rank_correlations(list(signals.values())))


def _map(features: Float32[np.ndarray, "n d"], rows: Sequence[Rows]) -> FeatureMap:
    sample = _sample(len(features), 5 * NUM_SAMPLED)
    projected, explained = measures.principal_axes(features, sample)
    picked = [projected[chosen[_sample(len(chosen), NUM_SAMPLED // 2)]] for chosen in rows]
    return FeatureMap(projected[sample[:NUM_SAMPLED]], picked, explained)


def _similarities(root: Path, rankings: Sequence[_Ranking], num_prompts: int) -> dict[str, float]:
    """Return the mean similarity under each arm's kernel of a sample of the prompts."""
    similarity: dict[str, float] = {}
    for ranking in rankings:
        shipped = ranking.kernel is not None and "code" not in ranking.kernel
        kind = _KERNELS.get(ranking.kernel["type"].rpartition(".")[2]) if ranking.kernel and shipped else None
        if kind is None or ranking.kernel is None or ranking.score is None or ranking.arm.name in similarity:
            continue
        scores = _load_scores(root / "score" / ranking.score, num_prompts)
        if scores is not None and num_prompts > 1:
            fields = {name: value for name, value in ranking.kernel.items() if name not in ("type", "version")}
            name, how = ranking.features
            view = _view_of(root / "score" / ranking.score, name)
            read = scores.views[view] if view else scores.features
            sample = read[np.sort(_sample(num_prompts, _NUM_EMBEDDED))].astype(np.float32)
            features = sample if how == "raw" else Normalization.fit(np.asarray(read), how).apply(sample)
            similarity[ranking.arm.name] = mean_similarity(kind(**fields).embed(features))
    return similarity


def _view_of(folder: Path, name: str | None) -> str | None:
    """Return the name of a view in these scores; None for the first."""
    record = read_record(folder)
    kept: Mapping[str, Any] = record["fields"]["scorer"] if record else {"position": "last", "layer": -1}
    scorer = Scorer(position=kept["position"], layer=kept["layer"])
    found = scorer.view(name)
    return None if found == scorer.view(None) else found
