"""Open an untrusted model in a subprocess first: a malformed file can crash the interpreter.

Interpreters are C++ and trust the numbers in a file: of 12,000 files with some bytes changed, 26
ended LiteRT 2.3 with SIGABRT or SIGSEGV in `allocate_tensors`. No check in Python finds them all.
The subprocess opens the file within limits of memory and time. The model needs no more memory
afterwards, because the tensors of a network are allocated once.

`python -m kws.model_check MODEL N_THREADS` is the subprocess; it prints the error in the file.
"""

import contextlib
import functools
import resource
import signal
import subprocess
import sys
from pathlib import Path

from kws.errors import ModelError
from kws.model import Model, bundled_models, open_model

__all__ = ["check_model", "main", "open_bounded"]

_MOST_MB = 128.0
_MEMORY_BYTES = 2 << 30
_CPU_S, _WALL_S = 30, 120


def check_model(path: Path, *, n_threads: int = 1) -> None:
    """Check a model in a subprocess; the bundled models are trusted.

    A file that was checked is not checked again until it changes.

    Raises
    ------
    ModelError
        If the model is invalid, crashes the subprocess, or needs more than 128 MiB of memory or
        30 s of CPU time.
    """
    if path in bundled_models().values():
        return
    try:
        at = path.stat()
    except OSError:
        return  # `open_model` reports the error
    _check_file(path, n_threads, (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns))


def main() -> int:
    """Open the model that the command line names; return 0, or the exit code of the error."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    with contextlib.suppress(ValueError, OSError):  # a lower limit holds already
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for path in list(bundled_models().values())[:1]:
        open_model(path)  # the memory of the interpreter itself does not count
    try:
        open_bounded(Path(sys.argv[1]), n_threads=int(sys.argv[2]))
    except ModelError as error:
        print(error)
        return error.exit_code
    return 0


def open_bounded(path: Path, *, n_threads: int = 1) -> Model:
    """Open a model that needs no more than 128 MiB; without /proc, memory is not limited.

    Raises
    ------
    ModelError
        As in `open_model`, or if it needs more.
    """
    before_mb = _peak_mb()
    model = open_model(path, n_threads=n_threads)
    if (needed_mb := _peak_mb() - before_mb) > _MOST_MB:
        raise ModelError(
            f"A model must run within {_MOST_MB:g} MiB of memory. Received: {path}, which takes "
            f"{needed_mb:.0f} MiB. Train a smaller one; if it is small, it is damaged or malicious."
        )
    return model


def _peak_mb() -> float:
    """Return the peak memory of this program [MiB]; rusage would include its parent's."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@functools.lru_cache(maxsize=64)
def _check_file(path: Path, n_threads: int, _state: tuple[int, ...]) -> None:
    command = [sys.executable, "-P", "-m", "kws.model_check", str(path), str(n_threads)]
    try:
        ended = subprocess.run(
            command,
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
    if ended.returncode:
        last_line = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _refused(path, _outcome(ended.returncode) + "".join(f": {it}" for it in last_line))


def _outcome(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _refused(path: Path, received: str) -> ModelError:
    return ModelError(
        f"A model must open in a subprocess before it is used. Received: {received} from {path}. "
        f"The file is damaged or malicious: copy or export it again."
    )


if __name__ == "__main__":
    sys.exit(main())
