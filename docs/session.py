"""Draws docs/session.svg: `awareness ask` on a repository, as its terminal shows it.

    python docs/session.py FOLDER "QUESTION"

Runs the command and exports what it printed with Rich.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

OUT = Path(__file__).with_name("session.svg")


def main(folder: str, question: str) -> None:
    command = ["awareness", "ask", question]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    answer, _, sources = ran.stdout.partition("\nSources")
    console = Console(record=True, width=100, file=sys.stderr)
    console.print(Text.assemble(("$ ", "dim"), f'awareness ask "{question}"'))
    console.print(Markdown(answer.strip()))
    console.print(Text("\nSources", style="bold"))
    for line in sources.strip("\n").split("\n"):
        console.print(Text(line, style="dim" if line.startswith(("  also", "      ")) else ""))
    console.print(Text(ran.stderr.strip().split("\n")[-1], style="dim"))
    OUT.write_text(console.export_svg(title=f"{Path(folder).name}: awareness ask"), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
