"""Draw docs/benchmarks.svg from what the other scripts measured: python benchmarks/figure.py

One panel a job, one bar a contestant: the median CPU seconds of its rounds in benchmarks/measured.csv, on a logarithmic
axis. The label says how many times ours that is, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
LEFT_OUT = ("random", "aliquot, first run", "aliquot, warm start", "aliquot, start of others")
OURS, PEER = "#0b6e4f", "#8a8f98"


def read(path: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Return job -> contestant -> (median CPU seconds, median peak GB), of the jobs that have a peer."""
    rounds: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["contestant"] in LEFT_OUT or row["job"] == "approximate":
                continue
            title = f"{row['job']}: {int(row['n']):,} prompts, {int(row['k']):,} picks, d = {int(row['d']):,}"
            rounds[title][row["contestant"]].append((float(row["cpu_s"]), float(row["peak_gb"] or "nan")))
    return {
        job: {
            name: (median(cpu for cpu, _ in runs), median(gb for _, gb in runs)) for name, runs in contestants.items()
        }
        for job, contestants in rounds.items()
        if len(contestants) > 1
    }


def draw(jobs: dict[str, dict[str, tuple[float, float]]], path: Path) -> None:
    """Draw one panel a job, as high as it has bars."""
    heights = [len(contestants) + 0.9 for contestants in jobs.values()]
    style = {"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "aliquot", "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure, panels = plt.subplots(
            len(jobs), 1, figsize=(8, 0.34 * sum(heights)), sharex=True, height_ratios=heights, squeeze=False
        )
        for (job, contestants), panel in zip(jobs.items(), panels[:, 0], strict=True):
            ours = contestants["aliquot"][0]
            for y, (name, (cpu, peak)) in enumerate(contestants.items()):
                panel.barh(y, cpu, color=OURS if name == "aliquot" else PEER, height=0.72)
                panel.text(cpu * 1.08, y, label(cpu, ours, peak), va="center")
            panel.set_yticks(range(len(contestants)), contestants.keys())
            panel.set_ylim(len(contestants) - 0.4, -0.6)
            panel.set_title(job, loc="left", fontsize=9, fontweight="bold")
            panel.set_xscale("log")
            panel.minorticks_off()
            panel.spines[["top", "right"]].set_visible(False)
        panels[-1, 0].set_xlabel("CPU seconds (logarithmic), and peak memory of the process")
        left, right = panels[-1, 0].get_xlim()
        panels[-1, 0].set_xlim(left / 3, right * 60)  # no bar of length 0, and room for the labels
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def label(cpu: float, ours: float, peak: float) -> str:
    """Return what stands beside a bar."""
    ratio = cpu / ours
    times = "" if ratio == 1 else f" = {ratio:,.0f} x" if ratio >= 10 else f" = {ratio:.1f} x"
    return f"{cpu:,.1f} s{times}, {peak:.1f} GB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=HERE / "measured.csv")
    parser.add_argument("--to", type=Path, default=HERE.parent / "docs" / "benchmarks.svg")
    args = parser.parse_args()
    draw(read(args.csv), args.to)


if __name__ == "__main__":
    main()
