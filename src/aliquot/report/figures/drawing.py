"""A figure with its text, as SVG for a page and as files, in the style that all figures share.

Text and axes take the color of the surrounding text (`currentColor`) on a transparent background, so a page may be
light or dark. Every color here has a contrast of at least 3 to 1 on white and on near black, and color is never the
only difference between two arms. Fonts are sized for columns from 328 to 600 pixels: a drawing is 5 inches wide and
may be scaled down to 0.68.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike

from aliquot.report.analysis.findings import Finding
from aliquot.report.analysis.numbers import percent, percent_interval, with_interval
from aliquot.store.store import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches.
WIDTH = 5.0
#: Placeholder for `currentColor`: text, axes, grid.
INK = "#1b1d21"
#: The color of random, of the pool, and of any other baseline.
NEUTRAL = "#808080"
ACCENT = "#0072b2"
#: One per arm; blue, vermilion and green of Okabe and Ito (2008), the others chosen to match them.
COLORS = (ACCENT, "#d55e00", "#009e73", "#b558a0", "#8a6d00", "#6f63d6")
MARKERS = ("o", "s", "D", "^", "v", "P")
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DPI = 200
_DPI_IN_SVG = 110  # for clouds of points, which are pixels in SVG too
_LINE = 28  # maximum characters per line of a label


@dataclass(frozen=True)
class Drawing:
    """A figure with its text.

    Args:
        name: of its files, and unique among the drawings of a study: letters, digits, `-` and `_`.
        title: a heading.
        description: the content of the figure, with numbers, for readers who cannot see it.
        figure: drawn with a `Canvas`.
        hover: id of an artist -> the hover text of each of its points.
    """

    name: str
    title: str
    description: str
    figure: Figure
    hover: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def svg(self, prefix: str = "") -> str:
        """Return an `<svg>` element to embed in HTML.

        Args:
            prefix: for all ids, for a page that holds drawings of several studies.
        """
        return ElementTree.tostring(self._element(prefix), encoding="unicode")

    def save(self, folder: Path) -> None:
        """Write name.svg and name.png, both on white."""
        element = self._element("")
        ground = ElementTree.Element(f"{{{_SVG}}}rect", width="100%", height="100%", fill="white")
        element.insert(0, ground)
        write_atomic(folder / f"{self.name}.svg", ElementTree.tostring(element, encoding="unicode") + "\n")
        temporary = folder / f".{self.name}.png"
        try:
            temporary.write_bytes(self._png())
            temporary.replace(folder / f"{self.name}.png")
        finally:
            temporary.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as SVG, without the figure: a page needs only that."""
        return {"_rendered": self._rendered} | {name: value for name, value in vars(self).items() if name != "figure"}

    def _png(self) -> bytes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        buffer = io.BytesIO()
        with styled():
            self.figure.set(dpi=_DPI, facecolor="white")
            # `savefig` would draw everything twice.
            FigureCanvasAgg(self.figure).print_png(buffer, metadata={"Software": None})
        return buffer.getvalue()

    def _element(self, prefix: str) -> ElementTree.Element:
        root = ElementTree.fromstring(self._rendered)
        for metadata in root.findall(f"{{{_SVG}}}metadata"):
            root.remove(metadata)
        for name, titles in self.hover.items():
            _add_titles(root, name, titles)
        _own_ids(root, f"{prefix}{self.name}")
        root.set("role", "img")
        root.set("aria-label", self.description)
        ElementTree.register_namespace("", _SVG)
        ElementTree.register_namespace("xlink", _XLINK)
        return root

    @functools.cached_property
    def _rendered(self) -> str:
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        buffer = io.StringIO()
        with styled():
            self.figure.set(dpi=_DPI_IN_SVG, facecolor="none")
            FigureCanvasSVG(self.figure).print_svg(buffer, metadata={"Date": None})
        # Any sans-serif font of the reader's works: they are narrower than the one used for layout.
        text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", buffer.getvalue())
        return text.replace(INK, "currentColor")


def _add_titles(root: ElementTree.Element, name: str, titles: Sequence[str]) -> None:
    """Give every point of an artist its hover text."""
    group = next(element for element in root.iter(f"{{{_SVG}}}g") if element.get("id") == name)
    defined = {element for defs in group.iter(f"{{{_SVG}}}defs") for element in defs.iter()}
    shapes = [e for e in group.iter() if e.tag in (f"{{{_SVG}}}use", f"{{{_SVG}}}path") and e not in defined]
    for shape, title in zip(shapes, titles, strict=True):
        ElementTree.SubElement(shape, f"{{{_SVG}}}title").text = title
        shape.set("pointer-events", "all")  # also inside a hollow marker


def _own_ids(root: ElementTree.Element, name: str) -> None:
    """Prefix all ids, and references to them, with the drawing's name, because a page holds many drawings."""
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key.endswith("href") and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
        if element.tag == f"{{{_SVG}}}style" and element.text:
            element.text = element.text.replace("*", f"#{name} *")  # its rules apply to this drawing, not the page
    root.set("id", name)


class Canvas:
    """A figure under construction, and the hover texts of its points.

    Args:
        height: in inches.
        rows: of panels.
        columns: of panels.
        options: of matplotlib's `Figure.subplots`.
    """

    def __init__(self, height: float, rows: int = 1, columns: int = 1, **options: Any) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH, height), dpi=_DPI, layout="constrained")
        self.panels: list[list[Axes]] = self.figure.subplots(rows, columns, squeeze=False, **options).tolist()
        self._hover: dict[str, Sequence[str]] = {}

    def points(self, axes: Axes, x: ArrayLike, y: ArrayLike, titles: Sequence[str], **style: Any) -> None:
        """Plot markers with hover texts; all coordinates are finite."""
        if not titles:
            return
        assert np.isfinite(np.asarray(x, dtype=float)).all() and np.isfinite(np.asarray(y, dtype=float)).all()
        name = f"points{len(self._hover)}"
        look: dict[str, Any] = {
            "linestyle": "none",
            "markersize": 5.5,
            "markeredgewidth": 1.2,
            "zorder": 3,
            "clip_on": False,
        }
        axes.plot(x, y, gid=name, **(look | style))
        self._hover[name] = titles

    def patch(self, axes: Axes, patch: Any, title: str) -> None:
        """Add a shape with a hover text."""
        name = f"patch{len(self._hover)}"
        patch.set_gid(name)
        axes.add_patch(patch)
        self._hover[name] = [title]

    def hide_beyond(self, used: int) -> None:
        """Hide the panels after the first `used`; a panel above a hidden one gets its labels."""
        panels = [axes for row in self.panels for axes in row]
        for i in range(used, len(panels)):
            panels[i].set_visible(False)
            if (above := i - len(self.panels[0])) >= 0:
                panels[above].tick_params(labelbottom=True)

    def legend(self, axes: Axes, columns: int) -> None:
        """Put the legend for the lines of a panel below all panels."""
        handles, labels = axes.get_legend_handles_labels()
        self.figure.legend(handles, labels, loc="outside lower left", ncols=columns)

    def drawing(self, name: str, title: str, description: str) -> Drawing:
        """Fix the layout and return the figure with its text."""
        engine = self.figure.get_layout_engine()
        assert engine is not None
        engine.execute(self.figure)
        self.figure.set_layout_engine("none")
        return Drawing(name, title, description, self.figure, self._hover)


def styled() -> AbstractContextManager[None]:
    """Return the settings with which figures are built and written."""
    import matplotlib as mpl

    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "text.parse_math": False,  # a dollar in a name is literal
            "svg.hashsalt": "aliquot",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9.5,
            "axes.titlesize": 10,
            "figure.labelsize": 9.5,
            "axes.titlelocation": "left",
            "axes.titley": 1.0,  # no figure has ticks at the top, and searching for them takes an eighth of the time
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.14,
            "grid.linewidth": 0.8,
            "legend.frameon": False,
            "legend.fontsize": 9.5,
            "lines.linewidth": 1.6,
            "xtick.minor.size": 0,
            "ytick.minor.size": 0,
            "figure.constrained_layout.h_pad": 0.06,
            "figure.constrained_layout.w_pad": 0.06,
            **dict.fromkeys(
                ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
            ),
        }
    )


def slug(name: str) -> str:
    """Return a name in a form that is valid in file names and ids."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


def count(number: int) -> str:
    """Write a budget on an axis: 10k, 2.5k, 500."""
    return f"{number / 1000:g}k" if number >= 1000 and number % 100 == 0 else f"{number:,}"


def say_score(f: Finding) -> str:
    """Write a finding's score for the hover text of a point."""
    seeds = "1 seed" if f.num_replicates == 1 else f"{f.num_replicates} seeds"
    score = with_interval(f"{percent(f.score)} %", percent_interval(f.score))
    return f"{f.arm.name}, {f.budget:,} prompts: {score}, {seeds}"


def wrapped(name: str) -> str:
    """Break a long name at its spaces."""
    return "\n".join(textwrap.wrap(name, _LINE, break_long_words=False, break_on_hyphens=False))


def apart(values: Sequence[float], gap: float, logarithmic: bool) -> list[float]:
    """Return the ascending values whose labels do not overlap on an axis, including the first and the last.

    Args:
        values: to be marked on the axis.
        gap: minimum distance between labels, as a share of the axis from the first value to the last.
        logarithmic: whether the axis is.
    """
    place = np.log(values) if logarithmic else np.asarray(values, dtype=float)
    least = gap * (place[-1] - place[0])
    kept = [0]
    for i in range(1, len(values) - 1):
        if place[i] - place[kept[-1]] >= least and place[-1] - place[i] >= least:
            kept.append(i)
    return [values[i] for i in kept] + ([values[-1]] if len(values) > 1 else [])


def thinned(values: Sequence[float], most: int) -> list[float]:
    """Return at most `most` values, including the first and the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
