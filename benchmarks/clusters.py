"""How well clusters of features recover the task labels of a pool, by view, normalization and number of clusters.

    python run.py until=score budget=all pool.sample=6000 scorer.position=[last,mean,weighted] scorer.layer=[-1,2] \\
        store=demo6k
    python benchmarks/clusters.py demo6k --name demo --csv docs/results/clusters.csv

Prints the adjusted mutual information (Vinh, Epps, Bailey 2010) of k-means clusters, as `allocation` makes them, with
the labels: 1 if they are the same partition, 0 for what chance gives. The store must hold one scored pool with labels.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_mutual_info_score

from aliquot.pools.prepare import load_prepared
from aliquot.scoring.normalization import NORMALIZATIONS, normalized
from aliquot.scoring.run import load_scores
from aliquot.scoring.spec import Scorer
from aliquot.selection.groups import by_cluster, by_task

NUM_CLUSTERS, ALSO = 100, (30, 300)


def measure(store: Path, name: str) -> list[dict[str, object]]:
    """Return one row per setting: every view and normalization with 100 clusters, and the best one with others."""
    scored, read = ([file.parent for file in (store / kind).glob("*/stage.json")] for kind in ("score", "pool"))
    if len(scored) != 1 or len(read) != 1:
        raise SystemExit(
            f"{store} has {len(scored)} scored and {len(read)} prepared pools; give a store with one of each"
        )
    scorer = json.loads((scored[0] / "stage.json").read_text(encoding="utf-8"))["fields"]["scorer"]
    if scorer["normalize"] != "raw":
        raise SystemExit(f"{store} was scored with scorer.normalize={scorer['normalize']}; score it with raw")
    scores, labels = load_scores(scored[0]), by_task(load_prepared(read[0], name))
    first = Scorer(position=scorer["position"], layer=scorer["layer"]).view(None)
    views = {first: scores.features, **scores.views}

    def row(view: str, how: str, num_clusters: int) -> dict[str, object]:
        started = time.monotonic()
        features = normalized(np.array(views[view], dtype=np.float32), how)
        found = [by_cluster(features, num_clusters, seed) for seed in (0, 1)]
        amis = [adjusted_mutual_info_score(labels, group) for group in found]
        about = {"pool": name, "prompts": len(labels), "tasks": int(labels.max()) + 1, "view": view, "normalize": how}
        mean = round(float(np.mean(amis)), 4)
        return {**about, "clusters": num_clusters, "ami": mean, "seconds": round(time.monotonic() - started, 1)}

    rows = [row(view, how, NUM_CLUSTERS) for view in views for how in NORMALIZATIONS]
    best = max(rows, key=lambda found: float(str(found["ami"])))
    return rows + [row(str(best["view"]), str(best["normalize"]), number) for number in ALSO]


def main() -> None:
    """Print the table, best first, and add it to a csv file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--name", default="pool", help="of the pool, for the table")
    parser.add_argument("--csv", type=Path, help="file to which the rows are added")
    arguments = parser.parse_args()
    rows = measure(arguments.store, arguments.name)
    table = Table(*rows[0])
    for found in sorted(rows, key=lambda found: -float(str(found["ami"]))):
        table.add_row(*map(str, found.values()))
    Console(width=120).print(table)
    if arguments.csv:
        new = not arguments.csv.exists()
        with arguments.csv.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            if new:
                writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
