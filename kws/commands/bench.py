"""The cost of listening on this machine: CPU by stage, memory, import and start-up time."""

import contextlib
import functools
import platform
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

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.commands.machine import interpreter_name, machine_name
from kws.commands.probe import run_probe
from kws.config import DecisionSettings, GateSettings, SourceSettings
from kws.decision import Decision, thresholds_for
from kws.errors import KwsError
from kws.features import open_features
from kws.gate import Gate
from kws.model import Model, with_embedding
from kws.sources import open_source
from kws.spotter import Spotter

__all__ = ["Measured", "cpu_by_stage", "measure", "recording", "speechlike", "table"]

_N_RUNS = 5
_LENGTH_S = 20
_LIMIT_S = 120.0
# The hangover is longer than the recording: once open, the gate stays open.
_OPEN = GateSettings(hangover_ms=60_000, aggressiveness=0)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one model.

    Attributes
    ----------
    model, model_bytes
        Name and size of the model.
    cpu_ms_per_s : dict
        By chunk length in milliseconds, then by stage: milliseconds of CPU per second of audio,
        medians. The model runs on every frame, except under `gate_closed`, which is the whole
        pipeline on silence.
    rss_over_numpy_mb : float or None
        Peak memory of a process that has listened for a second, minus that of Python with numpy;
        None if the system does not report it.
    import_ms_over_numpy : float
        Time to import the pipeline after numpy.
    first_frame_s : float
        Time from the start of `kws listen` to its first processed chunk.
    python, machine, interpreter
        Version of Python, machine, and interpreter of the model.
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
        If a separate process cannot run kws.
    """
    samples = recording()
    return Measured(
        model=model.manifest.name,
        model_bytes=path.stat().st_size,
        cpu_ms_per_s={str(ms): cpu_by_stage(model, samples, chunk_ms=ms) for ms in (80, 20)},
        rss_over_numpy_mb=_rss_over_numpy_mb(path),
        import_ms_over_numpy=round(_median(_import_ms), 1),
        first_frame_s=round(_median(lambda: _first_frame_s(path)), 3),
        python=platform.python_version(),
        machine=machine_name(),
        interpreter=interpreter_name(),
    )


def cpu_by_stage(model: Model, samples: Samples, *, chunk_ms: int) -> dict[str, float]:
    """Measure each stage alone, and the whole pipeline.

    Parameters
    ----------
    model : Model
    samples : int16 [shape=(n,)]
        Speech, at the model's rate.
    chunk_ms : int
        Length of the chunks.

    Returns
    -------
    dict of str to float
        Milliseconds of CPU per second of audio: `gate`, `features`, `model`, `decision`, `all`,
        and `gate_closed`.
    """
    spotted, model = model, with_embedding(model)
    manifest = model.manifest
    rate_hz = manifest.features.sample_rate_hz
    chunks = _cut(samples, rate_hz * chunk_ms // 1000)
    silence = _cut(np.zeros_like(samples), rate_hz * chunk_ms // 1000)
    gate, features = Gate(_OPEN, sample_rate_hz=rate_hz), open_features(manifest.features)
    steps = _cut(features.process(samples), manifest.hop_frames)
    posteriors = [row for step in steps for row in model.step(step)]
    decision = Decision(
        manifest.labels,
        thresholds=thresholds_for(DecisionSettings(), manifest),
        n_smoothing=3,
        n_refractory=30,
    )
    open_all, closed_all = Spotter(spotted, gate=_OPEN), Spotter(spotted)
    stages: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "gate": (gate.process, chunks),
        "features": (features.process, chunks),
        "model": (model.step, steps),
        "decision": (decision.step, posteriors),
        "all": (open_all.process, chunks),
        "gate_closed": (closed_all.process, silence),
    }
    length_s = len(samples) / rate_hz
    return {
        name: round(1000 * _median(functools.partial(_cpu_s, process, pieces)) / length_s, 3)
        for name, (process, pieces) in stages.items()
    }


def recording() -> Samples:
    """Return the first 20 s of the bundled recording; without it, a synthetic signal.

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
    """Return a buzz of 120 Hz, amplitude-modulated at 4 Hz, with noise; always the same.

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
    """Return the figures as lines of at most 80 columns."""
    stages = ("gate", "features", "model", "decision", "all", "gate_closed")
    lines = [
        f"{measured.model}, {measured.model_bytes / 1000:.0f} kB",
        f"{measured.interpreter}, Python {measured.python}",
        measured.machine,
        "",
        "CPU, ms per second of audio",
        "chunk " + "".join(f"{stage.replace('_', ' '):>12}" for stage in stages),
    ]
    for chunk_ms, costs in measured.cpu_ms_per_s.items():
        row = "".join(f"{costs[stage]:12.2f}" for stage in stages)
        lines.append(f"{chunk_ms + ' ms':<6}{row}")
    rss = measured.rss_over_numpy_mb
    lines += [
        "",
        f"memory beyond Python and numpy  {'unknown' if rss is None else f'{rss:.1f} MB'}",
        f"import after numpy              {measured.import_ms_over_numpy:.0f} ms",
        f"start to first frame            {measured.first_frame_s:.2f} s",
    ]
    return "\n".join(lines)


def _cut(values: npt.NDArray[Any], n: int) -> list[npt.NDArray[Any]]:
    """Cut into pieces of `n`; an incomplete last piece is dropped."""
    return [values[i : i + n] for i in range(0, len(values) - n + 1, n)]


def _cpu_s(process: Callable[[Any], object], pieces: Sequence[Any]) -> float:
    started_s = time.process_time()
    for piece in pieces:
        process(piece)
    return time.process_time() - started_s


def _median(sample: Callable[[], float]) -> float:
    return statistics.median(sample() for _ in range(_N_RUNS))


def _rss_over_numpy_mb(path: Path) -> float | None:
    if not Path("/proc/self/status").exists():
        return None
    numpy_mb = _median(lambda: _probe("numpy-memory")[0])
    spotter_mb = _median(lambda: _probe("spotter-memory", str(path))[0])
    return round(spotter_mb - numpy_mb, 1)


def _import_ms() -> float:
    elapsed_ms, _ = _probe("import-time")
    return elapsed_ms


def _first_frame_s(path: Path) -> float:
    """Time `kws listen` on a pipe, from its start to the log line of its first chunk."""
    command = [sys.executable, "-m", "kws", "--verbose", "listen", "--model", str(path)]
    started_s = time.perf_counter()
    with subprocess.Popen(
        [*command, "--input", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        stdin, stderr = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stderr)
        with contextlib.suppress(BrokenPipeError):  # the process has ended; its stderr says why
            stdin.write(bytes(2 * SAMPLE_RATE_HZ))
            stdin.flush()
        logged = []
        for line in stderr:
            if b"first chunk" in line:
                return time.perf_counter() - started_s
            logged.append(line.decode(errors="replace"))
    raise _failed(" ".join(logged))


def _probe(name: str, *arguments: str) -> list[float]:
    """Run a probe; return the numbers that it prints."""
    try:
        done = run_probe(name, *arguments, limit_s=_LIMIT_S, keep_bytecode=True)
    except subprocess.TimeoutExpired as error:
        raise _failed(f"no end within {_LIMIT_S:g} s") from error
    if done.returncode:
        raise _failed(done.stderr)
    return [float(number) for number in done.stdout.split()]


def _failed(output: str) -> KwsError:
    last_line = output.strip().splitlines()[-1:] or ["no output"]
    return KwsError(
        f"`kws bench` must be able to run kws in a separate process. Received: {last_line[0]}. "
        f"`kws doctor` shows what is missing."
    )
