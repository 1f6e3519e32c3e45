"""Run an untrusted model in a subprocess first: a malformed file can crash the interpreter.

Interpreters are C++ and trust the numbers in a file: of 12,000 files with some bytes changed, 26
ended LiteRT 2.3 with SIGABRT or SIGSEGV in `allocate_tensors`. No check in Python finds them all.
The subprocess reads the operators, builds the features and runs both on noise, full scale and
silence within limits of memory and time, which the kernel enforces. The model needs no more memory
afterwards: the size of its tensors does not depend on audio.

`python -m kws.model_check MODEL N_THREADS PARENT` is the subprocess; it prints the error in the
file, and ends with the process of number PARENT.
"""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kws.errors import ModelError
from kws.features import open_features
from kws.manifest import TFLITE_MARK, FeatureSettings, Manifest, embedding_inside
from kws.model import Model, bundled_models, model_path, open_embedding, open_model
from kws.model_file import read_model
from kws.onnx_file import check_onnx_operators
from kws.operators import check_operators
from kws.process_limits import end_with, limit_cpu, limit_memory, no_core, peak_mb

__all__ = ["check_features", "check_model", "limit_check", "main", "open_bounded"]

_MOST_MB = 80.0  # 150 MB with the interpreter's libraries
_MOST_PRODUCTS = 1 << 20  # of a frame
_MOST_PRODUCTS_PER_S = 100_000_000
_MOST_CALL_S = 10.0
_CPU_S, _WALL_S = 5, 60
_START_CPU_S = 30
_TRIAL_S = 1.0  # of each signal
_FULL_SCALE = 32_767

_Samples = npt.NDArray[np.int16]


def check_model(path: Path, *, n_threads: int = 1) -> None:
    """Check a model in a subprocess; the bundled models are trusted.

    A file that was checked is not checked again until it changes.

    Raises
    ------
    ModelError
        If the model is invalid, crashes the subprocess, needs more than 80 MiB of memory or 5 s of
        CPU time, is slower than real time, or has a step whose cost depends on the audio.
    """
    if path in bundled_models().values():
        return
    try:
        at = path.stat()
    except OSError:
        return  # `open_model` reports the error
    _check_file(path, n_threads, (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns))


def main() -> int:
    """Run the model that the command line names; return 0, or the exit code of the error."""
    path, n_threads, parent = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    end_with(parent)
    no_core()
    limit_cpu(_START_CPU_S)
    for bundled in list(bundled_models().values())[:1]:
        _run(open_model(bundled))  # the memory of the libraries themselves does not count
    limit_check(n_threads=n_threads)
    try:
        open_bounded(path, n_threads=n_threads)
    except MemoryError:
        print(_takes_too_much(path, f"more than {_MOST_MB:g} MiB"))
        return ModelError.exit_code
    except ModelError as error:
        print(_takes_too_much(path, f"more than {_MOST_MB:g} MiB") if _is_memory(error) else error)
        return error.exit_code
    return 0


def limit_check(*, n_threads: int = 1) -> None:
    """Let the kernel hold this process to the memory and the time that a check may take more."""
    limit_memory(_MOST_MB, n_threads=n_threads)
    limit_cpu(_CPU_S)


def open_bounded(path: Path, *, n_threads: int = 1) -> Model:
    """Open a model and run it, within 80 MiB; without /proc, memory is not limited.

    Raises
    ------
    ModelError
        As in `open_model`, or if it breaks a bound of `check_model`.
    """
    before_mb = peak_mb()
    manifest, content = read_model(model_path(path))
    check_features(manifest, name=str(path))
    check = check_operators if content[4:8] == TFLITE_MARK else check_onnx_operators
    check(content, name=str(path))
    if inside := embedding_inside(content):
        check_operators(inside, name=f"the embedding model inside {path}")
    model = open_model(path, n_threads=n_threads)
    cpu_s = _run(model)
    if (needed_mb := peak_mb() - before_mb) > _MOST_MB:
        raise _takes_too_much(path, f"{needed_mb:.0f} MiB")
    if cpu_s >= 1:
        raise ModelError(
            f"A model must be faster than real time. Received: {path}, which takes {cpu_s:.1f} s "
            f"of CPU time for 1 s of audio. Train a smaller one, or raise `hop_samples`."
        )
    model.reset()
    return model


def check_features(manifest: Manifest, *, name: str) -> None:
    """Check that the features of a model have a bounded cost, before they are built.

    Each number in the manifest has its bounds; their product has not.

    Raises
    ------
    ModelError
        If a frame takes more than 2^20 products, a second of audio more than 10^8, or a call of
        the network is due less often than every 10 s.
    """
    products = _products_of_frame(manifest.features)
    per_s = products * manifest.features.sample_rate_hz / manifest.features.hop_samples
    if products > _MOST_PRODUCTS or per_s > _MOST_PRODUCTS_PER_S:
        raise ModelError(
            f"The features of a model must take at most {_MOST_PRODUCTS:,} products a frame and "
            f"{_MOST_PRODUCTS_PER_S:,} a second. Received: {products:,} and {per_s:,.0f} in "
            f"{name}. Use a smaller `n_fft`, fewer bands or a longer hop."
        )
    if manifest.call_ms > 1000 * _MOST_CALL_S:
        raise ModelError(
            f"A network must be called every {_MOST_CALL_S:g} s at least. Received: every "
            f"{manifest.call_ms / 1000:.0f} s in {name}. Export it with fewer `hop_frames`."
        )


def _products_of_frame(settings: FeatureSettings) -> int:
    """Return the multiplications of a frame: the transform, and the matrices after it."""
    n_fft = settings.n_fft
    n_parts = n_fft + 2
    transform = 5 * n_fft * n_fft.bit_length() // 2
    if settings.kind == "spectrogram":
        return transform + n_parts * settings.n_features
    cepstra = settings.n_mels * settings.n_mfcc if settings.kind == "mfcc" else 0
    return transform + n_parts * settings.n_mels + cepstra


def _run(model: Model) -> float:
    """Run a model and its features on noise, full scale and silence; return CPU s per s of audio.

    Raises
    ------
    ModelError
        If it fails, or its tensors grow from call to call.
    """
    manifest = model.manifest
    features = open_features(manifest.features)
    embedding = None
    if manifest.takes:
        embedding = open_embedding(model)
    hop = (manifest.takes or manifest).hop_frames
    started_s, n_samples = time.process_time(), 0
    shapes = None
    for samples in _signals(manifest):
        frames = features.process(samples)
        for at in range(0, len(frames) - hop + 1, hop):
            step = frames[at : at + hop]
            model_input = embedding.step(step) if embedding else step
            if len(model_input) == manifest.hop_frames:
                model.step(model_input)
        n_samples += len(samples)
        if shapes is not None and shapes != model.tensor_shapes():
            raise ModelError(
                f"The tensors of a network must keep their sizes. Received: `{manifest.name}`, "
                f"whose memory grows from call to call. Export it with variables of fixed shapes."
            )
        shapes = model.tensor_shapes()
    audio_s = n_samples / manifest.features.sample_rate_hz
    return (time.process_time() - started_s) / audio_s


def _is_memory(error: ModelError) -> bool:
    """Return whether an interpreter got no more memory, of which LiteRT says nothing."""
    cause = error.__cause__
    return isinstance(cause, MemoryError) or (isinstance(cause, RuntimeError) and not str(cause))


def _signals(manifest: Manifest) -> Iterator[_Samples]:
    """Yield noise, a square wave of full scale, and silence: a second, or two calls, of each."""
    rate_hz, window = manifest.features.sample_rate_hz, manifest.features.window_samples
    n = max(int(_TRIAL_S * rate_hz), 2 * manifest.call_samples) + window
    noise = np.random.default_rng(1).integers(-_FULL_SCALE, _FULL_SCALE, n, dtype=np.int16)
    yield noise
    square = np.where(np.arange(n) // 20 % 2, _FULL_SCALE, -_FULL_SCALE - 1)
    yield square.astype(np.int16)
    yield np.zeros(n, np.int16)


@functools.lru_cache(maxsize=64)
def _check_file(path: Path, n_threads: int, _state: tuple[int, ...]) -> None:
    command = [sys.executable, "-P", "-m", "kws.model_check", str(path)]
    try:
        ended = subprocess.run(
            [*command, str(n_threads), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_WALL_S,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refused(path, f"no end within {_WALL_S} s") from None
    except OSError as error:
        raise _refused(path, f"a subprocess that does not start ({error.strerror})") from error
    if ended.returncode == ModelError.exit_code:
        raise ModelError(ended.stdout.decode(errors="replace").strip())
    if b"bad_alloc" in ended.stderr:
        raise _takes_too_much(path, f"more than {_MOST_MB:g} MiB")
    if ended.returncode:
        last_line = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _refused(path, _outcome(ended.returncode) + "".join(f": {it}" for it in last_line))


def _outcome(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
    return f"more than {_CPU_S} s of CPU time" if name == "SIGXCPU" else name


def _takes_too_much(path: Path, taken: str) -> ModelError:
    return ModelError(
        f"A model must run within {_MOST_MB:g} MiB of memory. Received: {path}, which takes "
        f"{taken}. Train a smaller one; if it is small, it is damaged or malicious."
    )


def _refused(path: Path, received: str) -> ModelError:
    return ModelError(
        f"A model must run in a subprocess before it is used. Received: {received} from {path}. "
        f"The file is damaged or malicious: copy or export it again."
    )


if __name__ == "__main__":
    sys.exit(main())
