"""Drawing helpers that the pictures of all measures share. Matplotlib is imported only when a picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awareness.evals.intervals import Estimate
from awareness.index.files.own.own_files import PICTURE_SOFTWARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The colours of Okabe and Ito, which colour-blind people tell apart; a reader has the same one in every picture.
_STYLES = {
    "none": ("#999999", "x"),
    "text": ("#E69F00", "s"),
    "text+lora": ("#D55E00", "D"),
    "joint": ("#56B4E9", "o"),
    "joint+lora": ("#0072B2", "h"),
    "tanh": ("#009E73", "^"),
    "bank": ("#CC79A7", "v"),
    "bm25": ("#000000", "*"),
}
_OTHERS = (("#882255", "X"), ("#332288", "p"), ("#999933", "<"), ("#44AA99", ">"), ("#AA4499", "d"))
_NARROWEST = 5.2  # inches that a title needs
_GROUP = 0.8  # share of a group's width that its bars take
_DODGE = 0.07  # powers of two between the points of two readers, which would else hide each other


def styles_of(readers: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each reader."""
    unknown = [reader for reader in readers if reader not in _STYLES]
    others = {reader: _OTHERS[i % len(_OTHERS)] for i, reader in enumerate(unknown)}
    return {reader: _STYLES.get(reader) or others[reader] for reader in readers}


def panels(columns: int, rows: int = 1, *, width: float = 4.1, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure of panels, row by row, with common axes' frames removed. width, height: of a panel, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (max(columns * width, _NARROWEST), rows * height)
    figure = Figure(figsize=size, dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in axes:
        panel.grid(axis="y", color="#d9d9d9", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8, length=2, color="#d9d9d9")
        panel.spines[["top", "right", "left"]].set_visible(False)
    return figure, axes


def save(figure: Figure, title: str, folder: Path, name: str) -> str:
    """Writes the figure; returns `name`."""
    figure.suptitle(title, fontsize=9)
    figure.savefig(folder / name, bbox_inches="tight", metadata={"Software": PICTURE_SOFTWARE})
    return name


def lines(
    panel: Axes, by_reader: Mapping[str, Mapping[int, Estimate | float]], ticks: Sequence[int] = (), *, what: str
) -> None:
    """A line for each reader, reader -> x -> y, with the intervals of estimates as bars.

    ticks: makes the x axis logarithmic, with these numbers on it. what: title of the panel.
    """
    styles = styles_of(list(by_reader))
    for i, (reader, points) in enumerate(by_reader.items()):
        shift = 2 ** (_DODGE * (i - (len(by_reader) - 1) / 2)) if ticks else 1.0
        estimates = [y if isinstance(y, Estimate) else Estimate(y, y, y, 1) for y in points.values()]
        colour, marker = styles[reader]
        panel.errorbar(
            [x * shift for x in points],
            [estimate.mean for estimate in estimates],
            yerr=_errors(estimates),
            label=reader,
            color=colour,
            marker=marker,
            markersize=5,
            elinewidth=1.0,
            capsize=2,
        )
    if ticks:
        panel.set_xscale("log", base=2)
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
    else:
        panel.locator_params(axis="x", integer=True)
    panel.set_title(what, fontsize=9)


def waiting(panel: Axes, by_reader: Mapping[str, Mapping[int, tuple[float, Estimate]]], *, what: str) -> None:
    """A curve for each reader, reader -> number of chunks -> (seconds to the first token, height), over the time on a
    logarithmic axis, with the number of chunks at each point; 0 for a reader without chunks. what: the y axis."""
    from matplotlib.ticker import LogLocator

    styles = styles_of(list(by_reader))
    highest = 0.0
    for reader, points in by_reader.items():
        ordered = sorted(points.items())
        seconds, heights = [time for _, (time, _) in ordered], [height for _, (_, height) in ordered]
        highest = max(highest, *(height.high for height in heights))
        colour, marker = styles[reader]
        means = [height.mean for height in heights]
        panel.errorbar(seconds, means, yerr=_errors(heights), fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.45)
        panel.plot(seconds, means, label=reader, color=colour, marker=marker, markersize=6)
        for number, (time, height) in ordered:
            if number:
                at = (time, height.mean)
                panel.annotate(str(number), at, xytext=(4, 4), textcoords="offset points", fontsize=8, color=colour)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.set_xlabel("seconds to the first token; at each point the number of chunks", fontsize=9)
    panel.set_ylabel(what, fontsize=9)
    panel.set_ylim(0, min(1.0, highest + 0.05))
    panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)


def bars(panel: Axes, heights: Mapping[tuple[str, str], Estimate], kinds: Sequence[str], *, what: str) -> None:
    """heights: (reader, kind) -> height. The bars of a reader stand side by side. what: title of the panel."""
    readers = list(dict.fromkeys(reader for reader, _ in heights))
    kinds_of = {reader: [kind for kind in kinds if (reader, kind) in heights] for reader in readers}
    width = _GROUP / max(map(len, kinds_of.values()), default=1)
    for i, kind in enumerate(kinds):
        own = [(at, reader) for at, reader in enumerate(readers) if kind in kinds_of[reader]]
        places = [at + (kinds_of[r].index(kind) - (len(kinds_of[r]) - 1) / 2) * width for at, r in own]
        y = [heights[reader, kind] for _, reader in own]
        means = [estimate.mean for estimate in y]
        panel.bar(places, means, width * 0.9, yerr=_errors(y), capsize=2, label=kind, color=f"C{i}", ecolor="0.3")
    panel.set_xticks(range(len(readers)), readers, rotation=20 if len(readers) > 4 else 0)
    panel.set_title(what, fontsize=9)


def bars_width(readers: int) -> float:
    """Inches of a panel with the bars of this many readers."""
    return max(3.2, 0.8 + 0.8 * readers)


def legend_beside(panel: Axes, title: str) -> None:
    panel.legend(fontsize=8, title=title, title_fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))


def _errors(estimates: Sequence[Estimate]) -> Any:
    return [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
