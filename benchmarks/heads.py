"""CPU time and memory of one head and of ten on the speech embedding, gate open and closed.

python benchmarks/heads.py HEAD.tflite
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np

from kws.arrays import Samples
from kws.commands.bench import recording
from kws.config import GateSettings
from kws.model import open_model
from kws.spotter import Spotter

_OPEN = GateSettings(hangover_ms=60_000, aggressiveness=0)  # once open, it stays open
_N_RUNS = 5
_MEMORY = """
import resource, sys
import numpy as np
if len(sys.argv) > 1:
    from kws.model import open_model
    from kws.spotter import Spotter
    heads = [open_model(sys.argv[1]) for _ in range(int(sys.argv[2]))]
    Spotter(heads, gate=False).process(np.zeros(16_000, np.int16))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


@click.command()
@click.argument("head", type=click.Path(path_type=Path, exists=True))
def main(head: Path) -> None:
    """Print a table of milliseconds per second of audio, and of memory over Python and numpy."""
    speech = recording()
    silence = np.zeros_like(speech)
    click.echo("| heads | open, 80 ms | open, 20 ms | closed, 80 ms | memory |")
    click.echo("|---|---|---|---|---|")
    base_mb = _memory_mb()
    for n in (1, 10):
        costs = [
            _cpu_ms(head, n, gate=gate, samples=samples, chunk_ms=ms)
            for gate, samples, ms in (
                (_OPEN, speech, 80),
                (_OPEN, speech, 20),
                (GateSettings(), silence, 80),
            )
        ]
        cells = " | ".join(f"{one:.2f} ms" for one in costs)
        click.echo(f"| {n} | {cells} | {_memory_mb(str(head), str(n)) - base_mb:.1f} MB |")


def _cpu_ms(head: Path, n: int, *, gate: GateSettings, samples: Samples, chunk_ms: int) -> float:
    """Return milliseconds of CPU time per second of audio, the median of five runs."""
    spotter = Spotter([open_model(head) for _ in range(n)], gate=gate)
    size = 16 * chunk_ms
    costs = []
    for _ in range(_N_RUNS):
        started_s = time.process_time()
        for start in range(0, len(samples) - size + 1, size):
            spotter.process(samples[start : start + size])
        costs.append(1000 * (time.process_time() - started_s) / (len(samples) / 16_000))
    return statistics.median(costs)


def _memory_mb(*arguments: str) -> float:
    """Return the peak memory of a process that runs so many heads on a second of silence."""
    command = [sys.executable, "-c", _MEMORY, *arguments]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


if __name__ == "__main__":
    main()
