"""Pictures of evaluation results. Matplotlib is imported only when one is drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awareness.evals.needle import NeedleReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart; an arm has the same one in every picture.
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
_INK, _FAINT, _EMPTY = "#222222", "#d9d9d9", "#f1f1f1"
_CELLS_A_ROW, _PANELS_A_ROW = 24, 4  # of the heat map, at the most
_NARROWEST = 5.2  # inches that the title needs


def styles_of(arms: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each arm."""
    strangers = [arm for arm in arms if arm not in _STYLES]
    own = {arm: _OTHERS[place % len(_OTHERS)] for place, arm in enumerate(strangers)}
    return {arm: _STYLES.get(arm) or own[arm] for arm in arms}


def needle_heat_map(report: NeedleReport, path: Path) -> None:
    """One panel an arm: depth down, number of chunks across, accuracy as colour and number. Grey where the chunks did
    not fit the arm's context."""
    depths = sorted({depth for number in report.chunks for depth in report.cases(number)})
    rows = math.ceil(len(report.arms) / max(1, min(_PANELS_A_ROW, _CELLS_A_ROW // len(report.chunks))))
    columns = math.ceil(len(report.arms) / rows)
    width = 0.5 + 0.52 * max(len(report.chunks), 3)
    figure = _figure(1.5 + columns * width, 1.15 + rows * (0.85 + 0.36 * max(len(depths), 2)))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    image: Any = None
    for panel in panels[len(report.arms) :]:
        panel.set_visible(False)
    for place, (panel, arm) in enumerate(zip(panels, report.arms, strict=False)):
        image = _heat_panel(panel, report, arm, depths)
        last_of_column = place + columns >= len(report.arms)
        panel.tick_params(labelbottom=last_of_column)
        if last_of_column:
            panel.set_xlabel("chunks", fontsize=8)
        if place % columns == 0:
            panel.set_ylabel("depth of the needle", fontsize=8)
    bar = figure.colorbar(image, ax=figure.axes[: len(report.arms)], shrink=0.85, aspect=24, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2, color=_FAINT)
    figure.suptitle(_title("Needles found by depth", report), fontsize=9, color=_INK)
    figure.savefig(path)


def _heat_panel(panel: Axes, report: NeedleReport, arm: str, depths: list[float]) -> Any:
    """Of an arm that says nothing: was the right chunk first?"""
    of_chunk = _ranks_only(report, arm)
    values = [[math.nan] * len(report.chunks) for _ in depths]
    for column, number in enumerate(report.chunks):
        for depth in report.cases(number):
            row = depths.index(depth)
            found = report.accuracy(arm, number, depth=depth, of_chunk=of_chunk)
            if found is None:
                panel.add_patch(_square(column, row))
            else:
                values[row][column] = found.mean
            dark = found is not None and found.mean > 0.55
            words = "—" if found is None else f"{found.mean:.2f}"
            panel.text(column, row, words, ha="center", va="center", fontsize=7.5, color="white" if dark else _INK)
    image = panel.imshow(values, vmin=0, vmax=1, cmap="YlGnBu", aspect="auto")
    mean = report.accuracy(arm, of_chunk=of_chunk)
    name = f"{arm} (which chunk)" if of_chunk else arm
    panel.set_title(name if mean is None else f"{name}  {mean.mean:.2f}", fontsize=9, color=_INK, pad=5)
    panel.set_xticks(range(len(report.chunks)), [str(number) for number in report.chunks], fontsize=8)
    panel.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize=8)
    panel.set_xticks([x - 0.5 for x in range(1, len(report.chunks))], minor=True)
    panel.set_yticks([y - 0.5 for y in range(1, len(depths))], minor=True)
    panel.grid(which="minor", color="white", linewidth=1.5)
    panel.tick_params(which="both", length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    return image


def _square(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=_EMPTY, edgecolor="none", zorder=0)


def needle_curve(report: NeedleReport, path: Path) -> None:
    """Accuracy over the number of chunks, one line an arm, with 95 % intervals; beside it whether the chunk that was
    looked at most, or ranked first, is the right one."""
    sides = [of_chunk for of_chunk in (False, True) if _arms_with(report, of_chunk)]
    figure = _figure(1.5 + 4.1 * len(sides), 3.6)
    panels = figure.subplots(1, len(sides), sharey=True, squeeze=False)[0]
    styles = styles_of(report.arms)
    titles = {False: "the value is said", True: "the right chunk: most attention, or ranked first"}
    drawn: dict[str, Any] = {}
    for panel, of_chunk in zip(panels, sides, strict=True):
        arms = _arms_with(report, of_chunk)
        for place, arm in enumerate(arms):
            shift = 2 ** (0.07 * (place - (len(arms) - 1) / 2))  # beside each other where they are equal
            known = [(number, report.accuracy(arm, number, of_chunk=of_chunk)) for number in report.chunks]
            points = [(number * shift, found) for number, found in known if found is not None]
            colour, marker = styles[arm]
            drawn[arm] = panel.errorbar(
                [x for x, _ in points],
                [found.mean for _, found in points],
                yerr=[[f.mean - f.low for _, f in points], [f.high - f.mean for _, f in points]],
                color=colour,
                marker=marker,
                markersize=9 if marker == "*" else 6,
                markeredgecolor="white" if marker not in "x+" else None,
                markeredgewidth=0.6 if marker not in "x+" else 1.5,
                linewidth=1.6,
                elinewidth=1.0,
                capsize=2.5,
            )
        _curve_axes(panel, report, titles[of_chunk])
    panels[0].set_ylabel("share found, 95 % interval", fontsize=8, color=_INK)
    names = [arm for arm in report.arms if arm in drawn]
    figure.legend([drawn[arm] for arm in names], names, loc="outside right center", fontsize=8, frameon=False)
    figure.suptitle(_title("Needles found", report), fontsize=9, color=_INK)
    figure.savefig(path)


def _curve_axes(panel: Axes, report: NeedleReport, title: str) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(report.chunks, [str(number) for number in report.chunks])
    panel.set_xlim(report.chunks[0] / 2**0.5, report.chunks[-1] * 2**0.5)
    panel.minorticks_off()
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlabel("chunks", fontsize=8, color=_INK)
    panel.set_title(title, fontsize=8.5, color=_INK)
    panel.grid(axis="y", color=_FAINT, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, length=2, color=_FAINT)
    for side, spine in panel.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_FAINT)


def _ranks_only(report: NeedleReport, arm: str) -> bool:
    """An arm that was asked and never said a value."""
    of_arm = [answer for answer in report.answers if answer.arm == arm]
    return bool(of_arm) and all(answer.found is None for answer in of_arm)


def _arms_with(report: NeedleReport, of_chunk: bool) -> list[str]:
    """Those that have any value, or any chunk, to show."""
    return [arm for arm in report.arms if any(report.accuracy(arm, n, of_chunk=of_chunk) for n in report.chunks)]


def _figure(width: float, height: float) -> Figure:
    """In inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(width, _NARROWEST), height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _title(what: str, report: NeedleReport) -> str:
    shapes = report.shapes[0] if len(report.shapes) == 1 else f"{len(report.shapes)} shapes"
    size = f"{report.chunk_tokens}-token chunks, n = {report.samples} for each number, seed {report.seed}"
    return f"{what}: {report.model}\n{shapes}, {size}"
