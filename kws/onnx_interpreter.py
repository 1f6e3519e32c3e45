"""onnxruntime behind the methods of a TFLite interpreter, for models that come as .onnx."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.errors import ModelError
from kws.flatbuffer import Tensor
from kws.onnx_file import read_onnx

__all__ = ["OnnxInterpreter"]

_Array: TypeAlias = npt.NDArray[Any]


class OnnxInterpreter:
    """An ONNX network, with the methods of a TFLite interpreter that `kws.model` calls.

    Parameters
    ----------
    content : bytes
    n_threads : int

    Raises
    ------
    ModelError
        If onnxruntime is not installed.
    ValueError
        For any error of onnxruntime, in later calls too.
    """

    def __init__(self, content: bytes, *, n_threads: int) -> None:
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as errors
        except ImportError as error:
            raise ModelError(
                f"An .onnx model needs onnxruntime. Received: none that can be imported ({error}). "
                f"Run `pip install 'kws[onnx]'`, or use the model's .tflite."
            ) from error
        self._errors = tuple(
            one
            for one in vars(errors).values()
            if isinstance(one, type) and issubclass(one, Exception)
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            raise ValueError(str(error)) from error
        network = read_onnx(content, name="the model")
        self._inputs, self._outputs = network.inputs, network.outputs
        self._values: dict[int, _Array] = {}

    def allocate_tensors(self) -> None:
        """Do nothing: tensors are allocated by the session."""

    def get_input_details(self) -> list[dict[str, Any]]:
        """Return name, shape and type of the inputs; the index of one counts from 0."""
        return [_details(one, i) for i, one in enumerate(self._inputs)]

    def get_output_details(self) -> list[dict[str, Any]]:
        """Return name, shape and type of the outputs; their indices follow those of the inputs."""
        return [_details(one, len(self._inputs) + i) for i, one in enumerate(self._outputs)]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        """Return what is known of tensors: of inputs and outputs."""
        return self.get_input_details() + self.get_output_details()

    def _get_ops_details(self) -> list[dict[str, Any]]:
        """Return no operators: none that is run keeps values between calls."""
        return []

    def set_tensor(self, index: int, value: _Array) -> None:
        """Set an input."""
        self._values[index] = value

    def invoke(self) -> None:
        """Run the network."""
        feeds = {one.name: self._values[i] for i, one in enumerate(self._inputs)}
        try:
            results = self._session.run([one.name for one in self._outputs], feeds)
        except self._errors as error:
            raise ValueError(str(error)) from error
        self._values.update(enumerate(results, start=len(self._inputs)))

    def get_tensor(self, index: int) -> _Array:
        """Return an output."""
        return self._values[index]


def _details(tensor: Tensor, index: int) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "index": index,
        "shape": np.array(tensor.shape),
        "dtype": np.float32,
        "quantization": (0.0, 0),
    }
