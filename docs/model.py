"""Draw docs/model.png: what a decoder layer reads, what that is made of, and where it is read.

python docs/model.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

FROZEN, LEARNED, STORED = "#dfe6ee", "#ffdfae", "#d6ecd6"
LINE = "#444444"
Place = tuple[float, float]


def box(axes: Axes, at: Place, text: str, colour: str, width: float = 2.5, height: float = 0.62) -> None:
    """Draw a box. at: its centre."""
    corner = (at[0] - width / 2, at[1] - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.03", fc=colour, ec=LINE, lw=0.8))
    axes.text(*at, text, ha="center", va="center", fontsize=7.5)


def arrow(axes: Axes, *places: Place) -> None:
    """Draw an arrow along `places`, with its head at the last one."""
    axes.plot(*zip(*places, strict=True), color=LINE, lw=0.9)
    axes.annotate("", places[-1], places[-2], arrowprops={"arrowstyle": "->", "color": LINE, "lw": 0.9, "shrinkB": 0})


def note(axes: Axes, at: Place, text: str, align: str = "left") -> None:
    axes.text(*at, text, ha=align, va="center", fontsize=7, color=LINE)


def title(axes: Axes, at: Place, text: str) -> None:
    axes.text(*at, text, ha="center", va="center", fontsize=8.5, weight="bold")


def latents(axes: Axes, x: float) -> None:
    title(axes, (x, 8.6), "memory of a repository")
    box(axes, (x, 7.9), "chunks of code", STORED)
    box(axes, (x, 6.7), "encoder\nself | projected", FROZEN)
    note(axes, (x + 1.4, 6.7), "its heads, soft\ntokens: learned")
    box(axes, (x, 5.5), "latents on disk\nK before RoPE, V", STORED)
    box(axes, (x, 4.3), "joined: K at −M … −1", FROZEN)
    for top, bottom in ((7.9, 6.7), (6.7, 5.5), (5.5, 4.3)):
        arrow(axes, (x, top - 0.34), (x, bottom + 0.34))


def bank(axes: Axes, x: float) -> None:
    title(axes, (x, 8.6), "bank, the same everywhere")
    box(axes, (x, 7.9), "N tokens, in C chapters", LEARNED)
    box(axes, (x, 6.7), "heads of a layer\nnorm, W_k, W_v", LEARNED)
    box(axes, (x, 5.5), "K at position 0, V", FROZEN)
    box(axes, (x, 4.3), "router: k of C chapters", LEARNED)
    for top, bottom in ((7.9, 6.7), (6.7, 5.5), (5.5, 4.3)):
        arrow(axes, (x, top - 0.34), (x, bottom + 0.34))


def layer(axes: Axes, x: float) -> None:
    axes.add_patch(Rectangle((x - 2.1, 0.35), 4.2, 7.95, fc="none", ec="#999999", lw=0.8, linestyle=":"))
    title(axes, (x, 8.6), "a decoder layer that reads")
    box(axes, (x, 7.2), "norm, self-attention", FROZEN, 2.9)
    box(axes, (x, 6.5), "joint: one softmax,\nbias $b_h$, gate $g_h$", LEARNED, 2.9)  # no step of its own: it touches
    box(axes, (x, 4.9), "tanh A: gated\ncross-attention", LEARNED, 2.9)
    box(axes, (x, 3.3), "norm, MLP", FROZEN, 2.9)
    box(axes, (x, 1.7), "tanh B: gated cross-\nattention, gated MLP", LEARNED, 2.9)
    arrow(axes, (x, 8.15), (x, 7.54))
    for top, bottom in ((6.5, 4.9), (4.9, 3.3), (3.3, 1.7), (1.7, 0.14)):
        arrow(axes, (x, top - 0.34), (x, bottom + 0.34))
        note(axes, (x + 0.15, top - 0.85), "+ h")
    note(axes, (x + 0.15, 7.9), "h")


def draw(path: Path) -> None:
    figure = Figure(figsize=(9, 5.6), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 14.4)
    axes.set_ylim(0.1, 9.0)
    axes.axis("off")
    left, middle, right = 1.9, 7.2, 12.5
    latents(axes, left)
    bank(axes, right)
    layer(axes, middle)
    for y in (6.5, 4.9, 1.7):
        for side, sign in ((left, 1), (right, -1)):
            spine = middle - sign * 2.6
            arrow(axes, (side + sign * 1.28, 4.3), (spine, 4.3), (spine, y), (middle - sign * 1.48, y))
    for y, colour, text in ((2.5, FROZEN, "frozen, or computed"), (1.9, LEARNED, "learned"), (1.3, STORED, "data")):
        box(axes, (0.9, y), "", colour, 0.5, 0.3)
        note(axes, (1.4, y), text)
    lines = ("One of the three is there:", "memory_form joint, or tanh with", "memory_block_variant A or B.")
    note(axes, (10.5, 1.9), "\n".join((*lines, "Nothing to read: the base's layer.")))
    figure.savefig(path)


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".png"))
