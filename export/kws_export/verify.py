"""Compare a model file's outputs with the trained model's, in a subprocess.

A malformed flatbuffer can crash the interpreter; run as ``python -m kws_export.verify MODEL
EXPECTED``, only the subprocess crashes.
"""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from kws.errors import KwsError, ModelError
from kws.model import open_model

__all__ = ["MIN_AGREEMENT", "Agreement", "compare", "verify"]

MIN_AGREEMENT = 0.985
"""Share of outputs at which an exported model must have the trained model's most probable label."""

_TIMEOUT_S = 600


class Agreement(msgspec.Struct, frozen=True):
    """Agreement of the outputs of two models.

    Attributes
    ----------
    argmax : float
        Share of outputs whose most probable label is the same, 0..1.
    largest_difference : float
        Of any posterior.
    n_outputs : int
    """

    argmax: float
    largest_difference: float
    n_outputs: int


def verify(model: Path, expected: Path) -> Agreement:
    """Run a model file over stored frames in a subprocess and compare with stored posteriors.

    Parameters
    ----------
    model : Path
    expected : Path
        An .npz with `frames` float32 [shape=(clips, frames, features)] and `posteriors` float32
        [shape=(clips, outputs, labels)].

    Raises
    ------
    ModelError
        If the subprocess crashes, times out or cannot use the file.
    """
    command = [sys.executable, "-m", "kws_export.verify", str(model), str(expected)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"An exported model must run. Received: no answer within {_TIMEOUT_S} s from {model}. "
            f"Export it with another `--quantize`."
        ) from error
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise ModelError(
            f"An exported model must run. Received: {reason[0]} from {model}. "
            f"Export it with another `--quantize`."
        )
    return msgspec.json.decode(done.stdout, type=Agreement)


def compare(model: Path, expected: Path) -> Agreement:
    """Run a model file over stored frames as `verify` does, in this process."""
    stored = np.load(expected)
    runtime = open_model(model)
    same: list[npt.NDArray[np.bool_]] = []
    largest = 0.0
    for frames, posteriors in zip(stored["frames"], stored["posteriors"], strict=True):
        out = runtime.run(frames)
        wanted = posteriors[: len(out)]
        same.append(_most_probable(out) == _most_probable(wanted))
        largest = max(largest, float(np.abs(out - wanted).max()))
    agreed = np.concatenate(same)
    return Agreement(float(agreed.mean()), largest, len(agreed))


def _most_probable(posteriors: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return the index of each output's most probable label; of a single label, 1 from 0.5 on."""
    if posteriors.shape[1] == 1:
        return np.rint(posteriors[:, 0]).astype(np.intp)
    return posteriors.argmax(axis=1)


def _main(model: str, expected: str) -> int:
    try:
        print(json.dumps(msgspec.to_builtins(compare(Path(model), Path(expected)))))
    except (KwsError, OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
