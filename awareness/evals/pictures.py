"""Pictures of what `perplexity`, `retrieval`, `latency` and `qa` measured; error bars and bands are 95 % intervals.

Matplotlib is imported only when one is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awareness.evals.compare import Compared
from awareness.evals.intervals import Estimate
from awareness.evals.latency import Latency
from awareness.evals.perplexity import CONDITIONS, Perplexity
from awareness.evals.qa import ArmScores
from awareness.evals.retrieval import Accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GROUP = 0.8  # of the width between two groups of bars


def perplexity_bars(rows: Sequence[Perplexity], title: str, path: Path) -> None:
    """A panel for lines and one for names; a group of bars an arm, a bar a condition."""
    figure, panels = _panels(2, len({row.arm for row in rows}))
    parts = [{(row.arm, row.condition): row.line for row in rows}, {(row.arm, row.condition): row.name for row in rows}]
    for panel, found, what in zip(panels, parts, ("the line", "the name in it"), strict=True):
        _bars(panel, found, CONDITIONS)
        panel.set_title(f"perplexity of {what}", fontsize=9)
    _legend_beside(panels[1], "in memory or prompt")
    _save(figure, title, path)


def retrieval_lines(rows: Sequence[Accuracy], retrieval_layers: Sequence[int], title: str, path: Path) -> None:
    """Acc@1 over layers, a line an arm, a baseline dashed; the retrieval layers shaded."""
    figure, (panel,) = _panels(1, 6)
    for arm in dict.fromkeys(row.order for row in rows if row.layer is not None):
        own = sorted((row.layer, row.at_1) for row in rows if row.order == arm and row.layer is not None)
        layers, found = [layer for layer, _ in own], [estimate for _, estimate in own]
        (line,) = panel.plot(layers, [one.mean for one in found], "o-", markersize=3, label=arm)
        panel.fill_between(
            layers, [one.low for one in found], [one.high for one in found], color=line.get_color(), alpha=0.15
        )
    arms = {row.order for row in rows if row.layer is not None}
    for row, style in zip((row for row in rows if row.order not in arms), ("--", ":", "-."), strict=False):
        panel.axhline(row.at_1.mean, linestyle=style, color="black", linewidth=1, label=f"{row.order} (no attention)")
    if retrieval_layers:
        panel.axvspan(min(retrieval_layers) - 0.5, max(retrieval_layers) + 0.5, color="grey", alpha=0.1)
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel("layer (shaded: those that citations go by)", fontsize=8)
    panel.set_ylabel("Acc@1 of the gold chunk", fontsize=8)
    _legend_beside(panel, "order")
    _save(figure, title, path)


def latency_lines(rows: Sequence[Latency], title: str, path: Path) -> None:
    """Seconds to the first token, and tokens a second behind it, by size; a line an arm."""
    figure, panels = _panels(2, 4)
    sizes = sorted({row.tokens for row in rows})
    for arm in dict.fromkeys(row.arm for row in rows):
        own = [row for row in rows if row.arm == arm and row.first_token_s is not None]
        for panel, values in zip(
            panels, ([row.first_token_s or 0 for row in own], [row.tokens_per_s or 0 for row in own]), strict=True
        ):
            panel.plot([row.tokens for row in own], values, "o-", markersize=4, label=arm)
        for row in own:
            if row.ratio is not None and row.ratio != 1.0 and row.tokens == sizes[-1]:
                at = (row.tokens, row.first_token_s)
                panels[0].annotate(f"×{row.ratio:.2f}", at, (-4, 6), textcoords="offset points", ha="right", fontsize=8)
    for panel, what in zip(panels, ("seconds to first token", "tokens/s behind it"), strict=True):
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes], fontsize=8, rotation=30)
        panel.minorticks_off()
        panel.set_xlabel("tokens in memory or prompt", fontsize=8)
        panel.set_title(what, fontsize=9)
        panel.set_ylim(bottom=0)
    panels[0].legend(fontsize=8)
    _save(figure, title, path)


def qa_bars(scores: Sequence[ArmScores], title: str, path: Path) -> None:
    """Token F1 of each arm; recall@3 of what it cites, a bar for each order of the citations."""
    figure, panels = _panels(2, len(scores))
    _bars(panels[0], {(one.arm, "answer"): one.f1 for one in scores if one.f1 is not None}, ("answer",))
    recall = {(one.arm, order): estimate for one in scores for order, estimate in one.recall.items()}
    _bars(panels[1], recall, ("routing", "attention", "both"))
    for panel, what in zip(panels, ("token F1 of the answer", "citation recall@3"), strict=True):
        panel.set_title(what, fontsize=9)
    panels[1].set_ylim(0, 1.02)
    _legend_beside(panels[1], "citations by")
    _save(figure, title, path)


def compare_bars(found: Sequence[Compared], title: str, path: Path) -> None:
    """Perplexity of each run, over all samples."""
    figure, (panel,) = _panels(1, len(found))
    _bars(panel, {(one.arm, "all"): one.perplexity[""] for one in found}, ("all",))
    panel.set_title("perplexity of the answer", fontsize=9)
    _save(figure, title, path)


def _panels(count: int, groups: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(count * max(3.2, 0.8 + 0.8 * groups), 3.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for panel in panels:
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8)
    return figure, panels


def _bars(panel: Axes, found: Mapping[tuple[str, str], Estimate], kinds: Sequence[str]) -> None:
    """found: (group, kind) -> height; the bars of a group stand side by side in the middle of its place."""
    groups = list(dict.fromkeys(group for group, _ in found))
    width = _GROUP / len(kinds)
    for i, kind in enumerate(kinds):
        places, own = [], []
        for at, group in enumerate(groups):
            there = [one for one in kinds if (group, one) in found]
            if kind in there:
                places.append(at + (there.index(kind) - (len(there) - 1) / 2) * width)
                own.append(found[group, kind])
        means = [one.mean for one in own]
        errors: Any = ([one.mean - one.low for one in own], [one.high - one.mean for one in own])
        panel.bar(places, means, width * 0.9, yerr=errors, capsize=2, label=kind, color=f"C{i}", ecolor="0.3")
    panel.set_xticks(range(len(groups)), groups, fontsize=8, rotation=20 if len(groups) > 4 else 0)


def _legend_beside(panel: Axes, title: str) -> None:
    panel.legend(fontsize=8, title=title, title_fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))


def _save(figure: Figure, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, bbox_inches="tight")
