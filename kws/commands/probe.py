"""Measurements in a fresh process: `python -m kws.commands.probe NAME [ARGUMENT]`.

A probe can crash or hang without its caller, and its imports and its memory are its own. Nothing
is imported before the probe runs, so that it measures what it names:

- `model NAME`: open a model and run it on one call of zeros.
- `kernels`: run the speech embedding on the interpreter's fastest kernels and on its built-in ones;
  print the milliseconds of CPU per second of audio of each.
- `source SETTINGS`: record a second from a source, given as JSON; print its name and its level.
- `import-time`: print the milliseconds, elapsed and CPU, of importing the pipeline after numpy.
- `numpy-memory`, `spotter-memory FILE`: print the peak memory in MB of numpy, of a running spotter.

An error is printed to standard error, with exit code 1.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subprocess import CompletedProcess

__all__ = ["PROBES", "main", "run_probe"]

_N_TIMED = 25


def run_probe(
    name: str, *arguments: str, limit_s: float, keep_bytecode: bool = False
) -> "CompletedProcess[str]":
    """Run a probe to its end.

    Parameters
    ----------
    name : str
        One of `PROBES`.
    arguments : str
    limit_s : float
        Time after which it is killed.
    keep_bytecode : bool
        Let the process write .pyc files, as pip does, even if PYTHONDONTWRITEBYTECODE is set.

    Raises
    ------
    subprocess.TimeoutExpired
        If it runs longer than `limit_s`.
    """
    import os
    import subprocess

    environment = dict(os.environ)
    if keep_bytecode:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(
        [sys.executable, "-P", "-m", "kws.commands.probe", name, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        check=False,
        env=environment,
    )


def main() -> None:
    """Run the probe that the command line names."""
    name, *arguments = sys.argv[1:]
    try:
        PROBES[name](*arguments)
    except Exception as error:
        from kws.errors import KwsError

        if not isinstance(error, KwsError):
            raise
        sys.exit(str(error))


def _run_model(name: str) -> None:
    """Open a model and run it on one call of zeros."""
    import numpy as np

    from kws.model import model_path, open_model

    manifest = (model := open_model(model_path(name))).manifest
    model.step(np.zeros((manifest.hop_frames, manifest.n_inputs), np.float32))


def _time_kernels() -> None:
    """Print what the speech embedding costs on the fastest and on the built-in kernels."""
    import time

    import numpy as np

    from kws.model import embedding_reference, open_model

    name = embedding_reference().name
    for reference in (False, True):
        model = open_model(name, reference=reference)
        manifest = model.manifest
        frames = np.zeros((manifest.hop_frames, manifest.features.n_features), np.float32)
        costs_ms = []
        for _ in range(_N_TIMED):
            started_s = time.process_time()
            model.step(frames)
            costs_ms.append(1000 * (time.process_time() - started_s))
        print(sorted(costs_ms)[_N_TIMED // 2] * 1000 / manifest.call_ms, flush=True)


def _record_source(settings: str) -> None:
    """Record a second from a source; print the name and the level in dBFS, a line each."""
    import msgspec
    import numpy as np

    from kws.audio import SAMPLE_RATE_HZ, level_dbfs
    from kws.config import SourceSettings
    from kws.sources import open_source

    samples = np.empty(0, np.int16)
    with open_source(msgspec.json.decode(settings, type=SourceSettings)) as source:
        for chunk in source:
            samples = np.concatenate((samples, chunk))
            if len(samples) >= SAMPLE_RATE_HZ:
                break
        print(source.name, level_dbfs(samples), sep="\n", flush=True)


def _time_import() -> None:
    """Print how long the import of the pipeline takes after numpy: elapsed ms, CPU ms."""
    import time

    import numpy  # noqa: F401

    if "kws.spotter" in sys.modules:
        raise RuntimeError("The pipeline must not be imported before it is timed.")
    elapsed_s, cpu_s = time.perf_counter(), time.process_time()
    import kws.spotter  # noqa: F401

    print(1000 * (time.perf_counter() - elapsed_s), 1000 * (time.process_time() - cpu_s))


def _measure_numpy_memory() -> None:
    """Print the peak memory [MB] of Python with numpy."""
    import numpy  # noqa: F401

    print(_peak_mb())


def _measure_spotter_memory(path: str) -> None:
    """Print the peak memory [MB] of a process that has run the model in `path` for a second."""
    from pathlib import Path

    import numpy as np

    from kws.model import open_model
    from kws.spotter import Spotter

    Spotter(open_model(Path(path))).process(np.zeros(16_000, np.int16))
    print(_peak_mb())


def _peak_mb() -> float:
    """Return VmHWM, which other than rusage counts from the start of this program."""
    import re
    from pathlib import Path

    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1.024e-3 if found else 0.0


PROBES: dict[str, Callable[..., None]] = {
    "model": _run_model,
    "kernels": _time_kernels,
    "source": _record_source,
    "import-time": _time_import,
    "numpy-memory": _measure_numpy_memory,
    "spotter-memory": _measure_spotter_memory,
}

if __name__ == "__main__":
    main()
