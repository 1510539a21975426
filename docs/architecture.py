"""Draws docs/architecture.png: the rooms of the package, the files in them, and which way imports point.

python docs/architecture.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

PACKAGE = Path(__file__).parent.parent / "awareness"
LINE = "#444444"
# (room, what it does, left, bottom, width, height, colour, columns of file names)
ROOMS = (
    ("cli", "parse, call, print", 0.1, 9.6, 11.8, 1.15, "#e8e4f3", 8),
    ("serve", "HTTP, the page, tools for agents", 0.1, 7.95, 7.2, 1.2, "#e8e4f3", 5),
    ("fleet", "many repositories: Ray, buckets", 7.85, 7.95, 4.05, 1.2, "#e8e4f3", 3),
    ("engine", "the library: open, refresh, search, attach, ask", 0.1, 4.9, 4.6, 2.6, "#dfe6ee", 2),
    ("evals", "measurements", 4.9, 4.9, 2.4, 2.6, "#dfe6ee", 2),
    ("train", "the training loop; data/ and samples/", 7.5, 4.9, 4.4, 2.6, "#dfe6ee", 3),
    ("index", "git, text and disk; no torch", 0.1, 1.35, 7.6, 3.1, "#d6ecd6", 5),
    ("model", "torch and transformers; no disk format", 7.9, 1.35, 4.0, 3.1, "#ffe8c7", 3),
    ("config", "YAML sections, environment", 0.1, 0.1, 5.0, 0.85, "#f2f2f2", 4),
)


def files_of(room: str) -> list[str]:
    """The modules of a room; those of a folder inside it stand as `folder/name`, without the folders above it."""
    folder = PACKAGE / room
    paths = sorted(folder.rglob("*.py"), key=lambda path: (path.parent, path))
    return ["/".join(path.relative_to(folder).with_suffix("").parts[-2:]) for path in paths if path.stem != "__init__"]


def draw_room(
    axes: Axes,
    room: str,
    purpose: str,
    left: float,
    bottom: float,
    width: float,
    height: float,
    colour: str,
    columns: int,
) -> None:
    style = "round,pad=0.02"
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, fc=colour, ec=LINE, lw=0.8))
    top = bottom + height - 0.13
    axes.text(left + 0.08, top, f"{room}/", fontsize=9, weight="bold", va="center")
    axes.text(left + width - 0.08, top, purpose, fontsize=7, va="center", ha="right", color=LINE)
    names = files_of(room)
    rows = -(-len(names) // columns)
    step = min(0.19, (height - 0.3) / max(rows, 1))
    for i, name in enumerate(names):
        column, row = divmod(i, rows)
        x = left + 0.1 + column * (width - 0.1) / columns
        axes.text(x, top - 0.24 - row * step, name, fontsize=6.2, va="center")


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": LINE, "lw": 1.0})


def main() -> None:
    figure = Figure(figsize=(12, 10.9), dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set_xlim(0, 12)
    axes.set_ylim(0, 10.9)
    axes.axis("off")
    for room in ROOMS:
        draw_room(axes, *room)
    style = "round,pad=0.02"
    axes.add_patch(FancyBboxPatch((5.3, 0.1), 6.6, 0.85, boxstyle=style, fc="#f2f2f2", ec=LINE, lw=0.8))
    axes.text(5.4, 0.66, "types.py, errors.py", fontsize=9, weight="bold", va="center")
    shared = "Chunk, Latent, MemorySpec, Memory, Hit, Citation; the tree of exceptions"
    axes.text(5.4, 0.36, f"what passes between the rooms: {shared}", fontsize=7, va="center", color=LINE)
    for x in (2.4, 6.1):
        draw_arrow(axes, (x, 9.56), (x, 9.2))
        draw_arrow(axes, (x, 7.91), (x, 7.55))
    draw_arrow(axes, (7.6, 9.56), (7.6, 7.55))
    draw_arrow(axes, (9.7, 9.56), (9.7, 9.2))
    draw_arrow(axes, (9.7, 7.55), (9.7, 7.91))  # train reads what a fleet has
    draw_arrow(axes, (7.33, 8.2), (7.81, 8.2))
    draw_arrow(axes, (8.0, 7.91), (4.4, 7.55))
    for start, end in ((2.0, 2.0), (4.2, 8.1), (5.6, 5.2), (7.0, 8.6), (8.8, 6.4), (10.1, 10.1)):
        draw_arrow(axes, (start, 4.86), (end, 4.5))
    draw_arrow(axes, (4.88, 6.8), (4.73, 6.8))  # evals asks as the engine does
    draw_arrow(axes, (7.33, 6.8), (7.48, 6.8))  # and measures on samples/
    for x in (2.6, 8.6):
        draw_arrow(axes, (x, 1.31), (x, 1.0))
    figure.savefig(Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
