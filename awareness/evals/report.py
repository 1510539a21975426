"""Pictures of evaluation results. Matplotlib is imported only when one is drawn."""

from __future__ import annotations

from pathlib import Path

from awareness.evals.needle import NeedleReport


def needle_heat_map(report: NeedleReport, path: Path) -> None:
    """One panel an arm: depth down, number of chunks across, accuracy as colour and number."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(cell.arm for cell in report.grid))
    chunks = sorted({cell.chunks for cell in report.grid})
    depths = sorted({cell.depth for cell in report.grid})
    figure = Figure(figsize=(1.6 + len(arms) * (0.8 + 0.62 * len(chunks)), 1.7 + 0.42 * len(depths)), dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for panel, arm in zip(panels, arms, strict=True):
        cells = {(c.depth, c.chunks): c.accuracy for c in report.grid if c.arm == arm}
        values = [[cells.get((depth, number), float("nan")) for number in chunks] for depth in depths]
        image = panel.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        for (row, depth), (column, number) in ((r, c) for r in enumerate(depths) for c in enumerate(chunks)):
            if (depth, number) in cells:
                panel.text(column, row, f"{cells[depth, number]:.2f}", ha="center", va="center", fontsize=7)
        panel.set_title(f"{arm}  {report.accuracy(arm):.2f}", fontsize=9)
        panel.set_xticks(range(len(chunks)), chunks, fontsize=8)
        panel.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize=8)
        panel.set_xlabel("chunks", fontsize=8)
    panels[0].set_ylabel("depth of the needle", fontsize=8)
    figure.colorbar(image, ax=list(panels), shrink=0.9).ax.tick_params(labelsize=7)
    figure.suptitle(
        f"Needles found: {report.model}, {report.chunk_tokens}-token chunks, seed {report.seed},"
        f" n = {report.samples} a column",
        fontsize=9,
    )
    figure.savefig(path, bbox_inches="tight")
