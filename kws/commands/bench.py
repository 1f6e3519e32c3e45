"""What listening costs on this machine: CPU by stage, memory, and the time until it listens."""

import contextlib
import functools
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ, Samples
from kws.commands.doctor import interpreter
from kws.config import DecisionSettings, GateSettings, SourceSettings
from kws.decision import Decision, thresholds_for
from kws.errors import KwsError
from kws.features import Features
from kws.gate import Gate
from kws.model import Model
from kws.sources import open_source
from kws.spotter import Spotter

__all__ = ["Measured", "cpu_by_stage", "measure", "recording", "speechlike", "table"]

_N_RUNS = 5
_LENGTH_S = 20
_LIMIT_S = 120.0
# A hangover longer than the recording: once open, the gate stays open.
_OPEN = GateSettings(hangover_ms=60_000, aggressiveness=0)

_RSS_MB = """
import re
from pathlib import Path
peak_kb = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)
print(int(peak_kb) * 1.024e-3)
"""
_LISTEN = """
import sys
from pathlib import Path
import numpy as np
from kws.model import open_model
from kws.spotter import Spotter
Spotter(open_model(Path(sys.argv[1]))).process(np.zeros(16_000, np.int16))
"""
_IMPORT_MS = """
import time
import numpy
started_s = time.perf_counter()
import kws.spotter
print(1000 * (time.perf_counter() - started_s))
"""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes
    ----------
    model, model_bytes
        What ran.
    cpu_ms_per_s : dict
        By chunk length in milliseconds, then by stage: milliseconds of CPU per second of audio,
        medians. The model runs on every frame, except under `gate_closed`, which is the whole
        pipeline on silence.
    rss_over_numpy_mb : float or None
        Peak memory of a process that has listened for a second, less that of Python with numpy;
        None where the system does not tell.
    import_ms_over_numpy : float
        Time to import the pipeline once numpy is imported.
    first_frame_s : float
        From the start of `kws listen` until it has heard its first chunk.
    python, machine, interpreter
        What it ran on.
    """

    model: str
    model_bytes: int
    cpu_ms_per_s: dict[str, dict[str, float]]
    rss_over_numpy_mb: float | None
    import_ms_over_numpy: float
    first_frame_s: float
    python: str
    machine: str
    interpreter: str


def measure(model: Model, *, path: Path) -> Measured:
    """Measure a model; takes about ten seconds.

    Parameters
    ----------
    model : Model
        For audio at 16 kHz.
    path : Path
        Its file.

    Raises
    ------
    KwsError
        If kws does not run in a process of its own.
    """
    samples = recording()
    return Measured(
        model=model.manifest.name,
        model_bytes=path.stat().st_size,
        cpu_ms_per_s={str(ms): cpu_by_stage(model, samples, chunk_ms=ms) for ms in (80, 20)},
        rss_over_numpy_mb=_rss_over_numpy_mb(path),
        import_ms_over_numpy=round(_median(lambda: float(_python(_IMPORT_MS))), 1),
        first_frame_s=round(_median(lambda: _first_frame_s(path)), 3),
        python=platform.python_version(),
        machine=_machine(),
        interpreter=interpreter(),
    )


def cpu_by_stage(model: Model, samples: Samples, *, chunk_ms: int) -> dict[str, float]:
    """Measure each stage alone, and all together.

    Parameters
    ----------
    model : Model
    samples : int16 [shape=(n,)]
        Speech, at the model's rate.
    chunk_ms : int
        How much audio is handed over at once.

    Returns
    -------
    dict of str to float
        Milliseconds of CPU per second of audio: `gate`, `features`, `model`, `decision`, `all`,
        and `gate_closed`.
    """
    manifest = model.manifest
    rate_hz = manifest.features.sample_rate_hz
    chunks = _cut(samples, rate_hz * chunk_ms // 1000)
    silence = _cut(np.zeros_like(samples), rate_hz * chunk_ms // 1000)
    gate, features = Gate(_OPEN, sample_rate_hz=rate_hz), Features(manifest.features)
    steps = _cut(features.process(samples), manifest.hop_frames)
    posteriors = [row for step in steps for row in model.step(step)]
    decision = Decision(
        manifest.labels,
        thresholds=thresholds_for(DecisionSettings(), manifest),
        n_smoothing=3,
        n_refractory=30,
    )
    open_all, closed_all = Spotter(model, gate=_OPEN), Spotter(model)
    work: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "gate": (gate.process, chunks),
        "features": (features.process, chunks),
        "model": (model.step, steps),
        "decision": (decision.step, posteriors),
        "all": (open_all.process, chunks),
        "gate_closed": (closed_all.process, silence),
    }
    length_s = len(samples) / rate_hz
    return {
        name: round(1000 * _median(functools.partial(_cpu_s, do, pieces)) / length_s, 3)
        for name, (do, pieces) in work.items()
    }


def recording() -> Samples:
    """Return the beginning of the bundled recording, or where there is none, something like it.

    Returns
    -------
    int16 [shape=(n,)]
        At 16 kHz.
    """
    path = Path(str(files("kws.models"))) / "demo.wav"
    try:
        with open_source(SourceSettings(input=str(path))) as source:
            return np.concatenate(list(source))[: _LENGTH_S * SAMPLE_RATE_HZ]
    except KwsError:
        return speechlike(_LENGTH_S)


def speechlike(length_s: float) -> Samples:
    """Return a voice-like buzz that swells four times a second, with noise; always the same.

    Returns
    -------
    int16 [shape=(n,)]
        At 16 kHz.
    """
    time_s = np.arange(int(length_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch = 2 * np.pi * 120 * time_s
    buzz = sum(np.sin(k * pitch) / k for k in range(1, 30))
    swell = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * time_s)
    noise = np.random.default_rng(0).normal(0, 30, len(time_s))
    return (3000 * swell * buzz + noise).astype(np.int16)


def table(measured: Measured) -> str:
    """Return what was measured as lines to read."""
    stages = ("gate", "features", "model", "decision", "all", "gate_closed")
    lines = [
        f"{measured.model} ({measured.model_bytes / 1000:.0f} kB), {measured.interpreter}, "
        f"Python {measured.python}, {measured.machine}",
        "",
        "ms of CPU per second of audio",
        "  " + "chunks".ljust(8) + "".join(f"{stage.replace('_', ' '):>13}" for stage in stages),
    ]
    for chunk_ms, costs in measured.cpu_ms_per_s.items():
        row = "".join(f"{costs[stage]:13.2f}" for stage in stages)
        lines.append(f"  {chunk_ms + ' ms':<8}{row}")
    rss = measured.rss_over_numpy_mb
    lines += [
        "",
        f"memory over Python with numpy  {'unknown' if rss is None else f'{rss:.1f} MB'}",
        f"import over numpy              {measured.import_ms_over_numpy:.0f} ms",
        f"start until the first frame    {measured.first_frame_s:.2f} s",
    ]
    return "\n".join(lines)


def _cut(values: npt.NDArray[Any], n: int) -> list[npt.NDArray[Any]]:
    """Cut into pieces of `n`; what is left over is dropped."""
    return [values[i : i + n] for i in range(0, len(values) - n + 1, n)]


def _cpu_s(do: Callable[[Any], object], pieces: Sequence[Any]) -> float:
    started_s = time.process_time()
    for piece in pieces:
        do(piece)
    return time.process_time() - started_s


def _median(sample: Callable[[], float]) -> float:
    return statistics.median(sample() for _ in range(_N_RUNS))


def _rss_over_numpy_mb(path: Path) -> float | None:
    if not Path("/proc/self/status").exists():
        return None
    bare = _median(lambda: float(_python("import numpy\n" + _RSS_MB)))
    listening = _median(lambda: float(_python(_LISTEN + _RSS_MB, str(path))))
    return round(listening - bare, 1)


def _first_frame_s(path: Path) -> float:
    """Start `kws listen` on a pipe and wait until it says that it has heard the first chunk."""
    command = [sys.executable, "-m", "kws", "--verbose", "listen", "--model", str(path)]
    started_s = time.perf_counter()
    with subprocess.Popen(
        [*command, "--input", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        stdin, stderr = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stderr)
        with contextlib.suppress(BrokenPipeError):  # its own words say why it has ended
            stdin.write(bytes(2 * SAMPLE_RATE_HZ))
            stdin.flush()
        said = []
        for line in stderr:
            if b"first chunk" in line:
                return time.perf_counter() - started_s
            said.append(line.decode(errors="replace"))
    raise _failed(" ".join(said))


def _python(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter that keeps what it compiles, as pip does; return output."""
    keeping = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    try:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=True,
            env=keeping,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise _failed(error.stderr) from error
    except subprocess.TimeoutExpired as error:
        raise _failed(f"nothing in {_LIMIT_S:g} s") from error


def _failed(said: str) -> KwsError:
    last_words = said.strip().splitlines()[-1:] or ["nothing"]
    return KwsError(
        f"To be measured, kws must run in a process of its own. Received: {last_words[0]}. "
        f"`kws doctor` says what is missing."
    )


def _machine() -> str:
    """Return the architecture and, where Linux tells, the board or the processor."""
    board = Path("/proc/device-tree/model")
    processors = Path("/proc/cpuinfo")
    name = board.read_text().strip("\0\n") if board.exists() else ""
    if not name and processors.exists():
        found = re.search(r"^model name\s*: (.+)$", processors.read_text(), re.MULTILINE)
        name = found.group(1) if found else ""
    return f"{platform.machine()}, {name}" if name else platform.machine()
