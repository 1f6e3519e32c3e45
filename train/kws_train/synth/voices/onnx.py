"""ONNX models of voices, opened with one thread: clips are synthesised in parallel processes."""

from pathlib import Path
from typing import Any

from kws.errors import ConfigError
from kws_train.optional import load_library

__all__ = ["open_session"]


def open_session(model: Path) -> Any:
    """Open an ONNX model with onnxruntime.

    Raises
    ------
    ConfigError
        If onnxruntime is not installed or cannot read the file.
    """
    runtime = load_library("onnxruntime", purpose="A neural voice")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class of their own
        raise ConfigError(
            f"The model of a voice must be a complete ONNX file. Received: {model} ({error}). "
            f"Download it again."
        ) from error
