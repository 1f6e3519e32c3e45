"""Write docs/terminal.svg out of real output: python docs/record_terminal.py.

The lines appear one after another, as detections do in the recording, ten times as fast.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

OUT = Path(__file__).with_name("terminal.svg")
ROOT = Path(__file__).parents[1]
RECORDING = "kws/models/demo.wav"
COMMAND = f"kws listen {RECORDING}"
FASTER = 10.0


def main() -> None:
    """Run the command, draw its output, and let each line appear at its time."""
    printed = run("listen", RECORDING).splitlines()
    events = map(json.loads, run("listen", "--json", RECORDING).splitlines())
    at_s = [event["end_s"] for event in events if event["event"] == "detection"]
    at_s.append(at_s[-1] + 5)
    console = Console(record=True, width=72, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(Text.assemble(("$ ", "bold green"), (COMMAND, "bold")))
    for line in printed:
        console.print(Text(line))
    svg = console.export_svg(title="kws", theme=MONOKAI, unique_id="kws")
    OUT.write_text(_animated(svg, at_s), encoding="utf-8")


def run(*arguments: str) -> str:
    """Return what `kws` prints for a file."""
    done = subprocess.run(
        [sys.executable, "-m", "kws", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _animated(svg: str, at_s: list[float]) -> str:
    """Let the text of each line after the first appear at its time; no fonts from elsewhere."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    style = "@keyframes appear { from { opacity: 0 } to { opacity: 1 } }"
    for i, time_s in enumerate(at_s, start=1):
        style += f"\n.line-{i} {{ animation: appear 0.1s {time_s / FASTER:.1f}s both }}"
    svg = svg.replace("</style>", f"{style}\n    </style>", 1)
    return re.sub(
        r'(<text class=")([^"]*)("[^>]*clip-path="url\(#kws-line-(\d+)\)")',
        lambda found: f"{found[1]}{found[2]} line-{found[4]}{found[3]}",
        svg,
    )


if __name__ == "__main__":
    main()
