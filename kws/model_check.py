"""A stranger's model, run first where it can do no harm to what runs already.

Interpreters are C++ that trusts the numbers in a file: of 12,000 files with some bytes changed, 26
ended LiteRT 2.3 with SIGABRT or SIGSEGV in `allocate_tensors`. No check in Python finds them all,
so a process of its own opens the file and takes a step, within bounds of memory and time. What is
used after that needs no more memory than it took there: a network's tensors are laid out once.

`python -m kws.model_check MODEL N_THREADS` is that process; it prints what is wrong with the file.
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
    """Open a model in a process of its own; those that come with kws need no trial.

    A file that was tried is not tried again until it changes.

    Raises
    ------
    ModelError
        If the file is refused, or ends the process, or needs more than 128 MiB of memory or 30 s of
        CPU time.
    """
    if path in bundled_models().values():
        return
    try:
        at = path.stat()
    except OSError:
        return  # `open_model` says what is wrong
    _try(path, n_threads, (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns))


def main() -> int:
    """Open the model named by the first argument; return 0, or the error's exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    with contextlib.suppress(ValueError, OSError):  # a lower limit holds already
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for path in list(bundled_models().values())[:1]:
        open_model(path)  # what the interpreter takes for itself is not the stranger's
    try:
        open_bounded(Path(sys.argv[1]), n_threads=int(sys.argv[2]))
    except ModelError as error:
        print(error)
        return error.exit_code
    return 0


def open_bounded(path: Path, *, n_threads: int = 1) -> Model:
    """Open a model that needs no more than 128 MiB; where /proc is missing, any.

    Raises
    ------
    ModelError
        As `open_model` does, or if it needs more.
    """
    before_mb = _peak_mb()
    model = open_model(path, n_threads=n_threads)
    if (needed_mb := _peak_mb() - before_mb) > _MOST_MB:
        raise ModelError(
            f"A model must run within {_MOST_MB:g} MiB of memory. Received: {path}, which takes "
            f"{needed_mb:.0f} MiB. Train a smaller one; if it is small, it is damaged or hostile."
        )
    return model


def _peak_mb() -> float:
    """Return the most memory that this program has held; other than rusage, since its own start."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@functools.lru_cache(maxsize=64)
def _try(path: Path, n_threads: int, _state: tuple[int, ...]) -> None:
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
        raise _refused(path, f"no process for the trial ({error.strerror})") from error
    if ended.returncode == ModelError.exit_code:
        raise ModelError(ended.stdout.decode(errors="replace").strip())
    if ended.returncode:
        last_words = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _refused(path, _end_of(ended.returncode) + "".join(f": {it}" for it in last_words))


def _end_of(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _refused(path: Path, received: str) -> ModelError:
    return ModelError(
        f"A model must open and take a step in a process of its own before it is used. Received: "
        f"{received} from {path}. The file is damaged or hostile: copy or export it again."
    )


if __name__ == "__main__":
    sys.exit(main())
