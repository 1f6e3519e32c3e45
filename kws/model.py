"""A TensorFlow Lite network, run step by step on feature frames.

`open_model` reads a file and returns a `StepModel`, which keeps the network's states between calls,
or a `WindowModel`, which slides a whole window over the frames. LiteRT runs both; tflite-runtime
where LiteRT has no wheel.
"""

import functools
import importlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from kws.cepstra import Cepstra
from kws.errors import ModelError, did_you_mean
from kws.manifest import (
    TFLITE_MARK,
    EmbeddingReference,
    Manifest,
    embedding_inside,
    manifest_inside,
    read_manifest,
)
from kws.model_file import read_model
from kws.onnx_interpreter import OnnxInterpreter
from kws.paths import expanded
from kws.stderr import quiet_stderr

__all__ = [
    "Model",
    "StepModel",
    "WindowModel",
    "bundled_models",
    "embedding_reference",
    "model_path",
    "n_cold_vectors",
    "n_context_vectors",
    "open_embedding",
    "open_model",
    "share_inputs",
    "start_after_silence",
    "with_embedding",
]

_EMBEDDING = "speech_embedding"

Posteriors: TypeAlias = npt.NDArray[np.float32]
Array: TypeAlias = npt.NDArray[Any]

# Operators that keep values between calls inside the interpreter.
_STATEFUL = frozenset(
    {
        "VAR_HANDLE",
        "SVDF",
        "RNN",
        "LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_RNN",
        "BIDIRECTIONAL_SEQUENCE_LSTM",
    }
)

# What interpreters raise on a damaged flatbuffer: on tensors, names that are not UTF-8, a step.
_INTERPRETER_ERRORS = (ValueError, RuntimeError, MemoryError, TypeError, ArithmeticError)


class Model(ABC):
    """A model and its interpreter; inputs are quantised and outputs dequantised.

    Attributes
    ----------
    manifest : Manifest
    latency_samples : int
        0: posteriors are out as soon as the last frame of a call is in.
    n_outputs : int
        Vectors of posteriors, or embeddings, that a call gives.
    """

    latency_samples = 0

    def __init__(
        self, manifest: Manifest, content: bytes, *, n_threads: int, reference: bool
    ) -> None:
        self.manifest = manifest
        self._made_of = (content, n_threads, reference)
        self._interpreter = _interpreter(content, n_threads=n_threads, reference=reference)
        self._reopen = None
        if any(op["op_name"] in _STATEFUL for op in self._interpreter._get_ops_details()):
            self._reopen = functools.partial(
                _interpreter, content, n_threads=n_threads, reference=reference
            )
        self._is_fresh = True
        inputs = {tensor["name"]: tensor for tensor in self._interpreter.get_input_details()}
        outputs = {tensor["name"]: tensor for tensor in self._interpreter.get_output_details()}
        self._input = _pick(inputs, manifest.input, what="input", manifest=manifest)
        self._output = _pick(outputs, manifest.output, what="output", manifest=manifest)
        n_frames = manifest.n_frames
        n_features = manifest.takes.size if manifest.takes else manifest.features.n_values
        if (size := int(np.prod(self._input["shape"]))) != n_frames * n_features:
            raise _disagrees(
                manifest, f"an input of {n_frames} frames of {n_features}", f"{size} values"
            )
        shape = [int(size) for size in self._output["shape"]]
        n_labels = shape[-1] if shape else 1
        expected = manifest.embedding or len(manifest.labels)
        if min(shape, default=1) < 1 or n_labels != expected:
            raise _disagrees(manifest, f"{expected} labels", f"{n_labels} outputs")
        self.n_outputs = math.prod(shape) // n_labels
        self._inputs, self._outputs = inputs, outputs
        self._affine = _affine(manifest)
        self._input_scale: _Scale | _LastInput = _Scale(self._input)
        self._output_scale = _Scale(self._output)
        self._frames_in = self._input["index"]
        self._posteriors_out = self._output["index"]

    @property
    def content(self) -> bytes:
        """The bytes of the model file."""
        return self._made_of[0]

    @property
    def embedding_inside(self) -> bytes | None:
        """The file of the embedding model that a head's own file holds, if it does."""
        return embedding_inside(self.content) if self.manifest.takes else None

    def copy(self) -> Self:
        """Return the same model with an interpreter of its own, on the same bytes."""
        content, n_threads, reference = self._made_of
        return type(self)(self.manifest, content, n_threads=n_threads, reference=reference)

    def try_step(self) -> None:
        """Run one step and reset: some models open, and fail when they are run."""
        self.step(np.zeros((self.manifest.hop_frames, self.manifest.n_inputs), np.float32))
        self.reset()

    @abstractmethod
    def reset(self) -> None:
        """Forget all frames."""

    def _clear_variables(self) -> None:
        """Open the interpreter anew where the network keeps values in it: 1 ms.

        `reset_all_variables` leaves resource variables as they are.
        """
        if self._reopen and not self._is_fresh:
            self._interpreter = self._reopen()
            self._is_fresh = True

    @abstractmethod
    def step(self, frames: Array, /) -> Posteriors:
        """Process the next `hop_frames` frames.

        Parameters
        ----------
        frames : float32 [shape=(hop_frames, n_features)]

        Returns
        -------
        float32 [shape=(n_outputs, labels)]
            Posteriors, oldest first.
        """

    def run(self, frames: Array, /) -> Posteriors:
        """Reset, then process whole frames of a signal, as many as fill steps.

        Parameters
        ----------
        frames : float32 [shape=(k, n_features)]

        Returns
        -------
        float32 [shape=(k // hop_frames * n_outputs, labels)]
            Posteriors, or embeddings of a model without labels, oldest first.
        """
        self.reset()
        hop = self.manifest.hop_frames
        steps = [self.step(frames[i : i + hop]) for i in range(0, len(frames) - hop + 1, hop)]
        n_values = self.manifest.embedding or len(self.manifest.labels)
        return np.concatenate(steps) if steps else np.empty((0, n_values), np.float32)

    def tensor_shapes(self) -> list[list[int]]:
        """Return the present shapes of all tensors; those of a bounded network never change."""
        return [tensor["shape"].tolist() for tensor in self._interpreter.get_tensor_details()]

    def _invoke(self, frames: Array, /) -> Posteriors:
        if self._affine:
            frames = frames * self._affine[0] + self._affine[1]
        try:
            quantised = self._input_scale.to_integers(frames).reshape(self._input["shape"])
            self._is_fresh = False
            self._interpreter.set_tensor(self._frames_in, quantised)
            self._interpreter.invoke()
            raw = self._interpreter.get_tensor(self._posteriors_out)
        except _INTERPRETER_ERRORS as error:
            raise _cannot_run(error, self._made_of[0]) from error
        return self._output_scale.to_values(raw).reshape(-1, raw.shape[-1])


class _State(NamedTuple):
    """A state: input and output tensor, initial value, and a rescaling if their scales differ."""

    taken: int
    given: int
    zero: Array
    rescale: Callable[[Array], Array] | None


class StepModel(Model):
    """A network with external states; each call takes a few new frames."""

    def __init__(
        self, manifest: Manifest, content: bytes, *, n_threads: int, reference: bool
    ) -> None:
        super().__init__(manifest, content, n_threads=n_threads, reference=reference)
        self._states = [self._state(s.input, s.output, s.shape) for s in manifest.states]
        if len(self._inputs) != 1 + len(self._states):
            raise _disagrees(
                manifest, f"{len(self._states)} states", f"{len(self._inputs) - 1} beside the input"
            )
        self.reset()

    def reset(self) -> None:
        """Set every state to zero, which in a quantised tensor is the zero point."""
        self._clear_variables()
        for taken, _, zero, _ in self._states:
            self._interpreter.set_tensor(taken, zero)

    def step(self, frames: Array, /) -> Posteriors:
        """Process the next frames and carry the states over; see `Model.step`."""
        posteriors = self._invoke(frames)
        interpreter = self._interpreter
        for taken, given, _, rescale in self._states:
            state = interpreter.get_tensor(given)
            interpreter.set_tensor(taken, rescale(state) if rescale else state)
        return posteriors

    def _state(self, taken: str, given: str, shape: tuple[int, ...]) -> _State:
        """Refuse tensors that do not fit together."""
        try:
            before, after = self._inputs[taken], self._outputs[given]
        except KeyError as error:
            raise _disagrees(self.manifest, f"a tensor `{error.args[0]}`", "none") from None
        for tensor in (before, after):
            received = tuple(tensor["shape"].tolist())
            if received != shape:
                raise _disagrees(self.manifest, f"a state of shape {shape}", str(received))
        zero = np.full(shape, before["quantization"][1], before["dtype"])
        if before["dtype"] == after["dtype"] and before["quantization"] == after["quantization"]:
            return _State(before["index"], after["index"], zero, None)
        source, target = _Scale(after), _Scale(before)
        return _State(
            before["index"],
            after["index"],
            zero,
            lambda state: target.to_integers(source.to_values(state)),
        )


class WindowModel(Model):
    """A network that takes a whole window of frames; the window slides by `hop_frames`.

    Until the window is full it is padded in front with copies of the first frame.
    """

    def __init__(
        self, manifest: Manifest, content: bytes, *, n_threads: int, reference: bool
    ) -> None:
        super().__init__(manifest, content, n_threads=n_threads, reference=reference)
        if len(self._inputs) != 1:
            raise _disagrees(manifest, "a window, its only input", f"{len(self._inputs)} inputs")
        features = manifest.features
        self._cepstra = None if features.normalization == "none" else Cepstra(features)
        self.reset()

    def reset(self) -> None:
        """Empty the window."""
        self._clear_variables()
        self._window: Array | None = None

    def step(self, frames: Array, /) -> Posteriors:
        """Slide the window by `hop_frames` and run the network on it; see `Model.step`."""
        if self._window is None:
            self._window = np.repeat(frames[:1], self.manifest.n_frames, axis=0)
        self._window = np.concatenate((self._window[len(frames) :], frames))
        window = self._window
        return self._invoke(self._cepstra.of_window(window) if self._cepstra else window)


class _JoinedModel(Model):
    """A head and its embedding."""

    def __init__(self, head: Model) -> None:
        self._head = head
        self._embedding = open_embedding(head)
        hop_frames = self._embedding.manifest.hop_frames
        self._n_context = n_context_vectors(head.manifest, self._embedding.manifest)
        self.n_outputs = head.n_outputs
        n_frames = hop_frames * head.manifest.hop_frames
        self.manifest = msgspec.structs.replace(
            head.manifest, takes=None, input_affine=None, n_frames=n_frames, hop_frames=n_frames
        )
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        start_after_silence(self._embedding, {self._head: self._n_context})

    def step(self, frames: Array, /) -> Posteriors:
        """Embed the next frames, and give what the head says of the vectors."""
        return self._head.step(self._embedding.step(frames))


def open_model(
    path: str | os.PathLike[str], *, n_threads: int = 1, reference: bool = False
) -> Model:
    """Open a model file.

    Parameters
    ----------
    path : str or path
        A bundled model's name or a file.
    n_threads : int
        Threads of the interpreter.
    reference : bool
        True runs the built-in kernels only: slower, but bit for bit the same on every machine.

    Raises
    ------
    ModelError
        If the file is not a model, contradicts its manifest or fails in a step, or if no
        interpreter is installed.
    """
    manifest, content = read_model(model_path(path))
    reference = reference or manifest.kernels == "reference"
    return _opened(manifest, content, n_threads=n_threads, reference=reference)


def _opened(manifest: Manifest, content: bytes, *, n_threads: int, reference: bool) -> Model:
    kind: type[Model] = StepModel if manifest.kind == "step" else WindowModel
    try:
        model = kind(manifest, content, n_threads=n_threads, reference=reference)
        model.try_step()
    except _INTERPRETER_ERRORS as error:
        raise _cannot_run(error, content) from error
    return model


def bundled_models() -> dict[str, Path]:
    """Return the files of the bundled models by name, without the speech embedding."""
    found = {path.stem: path for path in _folder().glob("*.tflite")}
    return {name: found[name] for name in sorted(found) if name != _EMBEDDING}


@functools.cache
def embedding_reference() -> EmbeddingReference:
    """Return the reference to the bundled speech embedding, for the manifest of a head."""
    manifest, content = read_manifest(model_path(_EMBEDDING))
    return EmbeddingReference(
        name=_EMBEDDING,
        sha256=_digest(content),
        size=manifest.embedding or 0,
        hop_frames=manifest.hop_frames,
    )


def open_embedding(head: Model, *others: Model) -> Model:
    """Open the embedding model that heads name: the bundled one, or else that in one's file.

    Parameters
    ----------
    head : Model
        With `takes`.
    *others : Model
        Heads on the same embedding.

    Raises
    ------
    ModelError
        If there is none of that name, it has other bytes, or it takes or gives something else than
        the head says.
    """
    stated = head.manifest
    if stated.takes is None:
        raise ModelError(f"A head must take vectors. Received: `{stated.name}`.")
    model = _open_embedding(stated.takes, (one.embedding_inside for one in (head, *others)))
    manifest = model.manifest
    found = manifest.features, manifest.embedding, manifest.hop_frames
    if found != (stated.features, stated.takes.size, stated.takes.hop_frames):
        raise ModelError(
            f"A head must state the features, the size and the hop of its embedding. Received: "
            f"`{stated.name}`, which states others than those of `{manifest.name}`. Train or "
            f"export the head again."
        )
    return model


def _open_embedding(reference: EmbeddingReference, inside: Iterable[bytes | None]) -> Model:
    path = _folder() / f"{reference.name}.tflite"
    try:
        content = path.read_bytes()
    except OSError as error:
        content, reason = b"", error.strerror
    if content and _digest(content) == reference.sha256:
        manifest = manifest_inside(content, name=str(path))
        return _opened(manifest, content, n_threads=1, reference=False)
    if own := next(filter(None, inside), None):
        return _open_inside(reference, own)
    if not content:
        raise ModelError(
            f"A head needs the embedding model that it was trained on. Received: a head for "
            f"`{reference.name}`, which does not come with this version of kws "
            f"({reason}). Update kws, or train the head again with this version."
        )
    raise ModelError(
        f"A head needs the embedding model that it was trained on. Received: a head for "
        f"`{reference.name}` with sha256 {reference.sha256[:12]}..., where this version of kws "
        f"has {_digest(content)[:12]}.... Train the head again, or install the version it was "
        f"made with."
    )


def _open_inside(reference: EmbeddingReference, content: bytes) -> Model:
    name = f"the embedding model inside a head for `{reference.name}`"
    if (digest := _digest(content)) != reference.sha256:
        raise ModelError(
            f"A whole head must hold the embedding model that it names. Received: {name} with "
            f"sha256 {digest[:12]}..., where the head names {reference.sha256[:12]}.... The file "
            f"is damaged: copy it, or run `kws export --whole`, again."
        )
    return _opened(manifest_inside(content, name=name), content, n_threads=1, reference=False)


def start_after_silence(embedding: Model, heads: Mapping[Model, int]) -> None:
    """Reset an embedding and heads, and fill their memory with silence before the stream.

    Frames of zeros are the least that the bundled speech embedding tells apart. Without them a
    recording that begins with its word would have no vector of the word's beginning, and heads
    would begin in a state that they were not trained in.

    Parameters
    ----------
    embedding : Model
    heads : mapping of Model to int
        Vectors that an output of each depends on, besides the newest.
    """
    manifest = embedding.manifest
    embedding.reset()
    silence = np.zeros((manifest.hop_frames, manifest.n_inputs), np.float32)
    for _ in range(n_cold_vectors(manifest) + 1):
        vectors = embedding.step(silence)
    for head, n_vectors in heads.items():
        head.reset()
        for _ in range(n_vectors):
            head.step(vectors)


def share_inputs(models: Iterable[Model]) -> None:
    """Quantise once what several models are given one after another, where their inputs are alike.

    Parameters
    ----------
    models : iterable of Model
        Steps of the same array object follow one another, and nobody writes into it in between.
    """
    shared: dict[tuple[Any, ...], _LastInput] = {}
    for model in models:
        scale = getattr(model, "_input_scale", None)  # none of a head joined to its embedding
        if isinstance(scale, _Scale):
            model._input_scale = shared.setdefault(scale.parameters, _LastInput(scale))


def n_cold_vectors(embedding: Manifest) -> int:
    """Return how many first vectors of a stream depend on frames before it."""
    return -(-embedding.context_frames // embedding.hop_frames) - 1


def n_context_vectors(head: Manifest, embedding: Manifest) -> int:
    """Return the vectors that an output of a head depends on, besides the newest."""
    own_frames = max(0, head.context_frames - embedding.context_frames)
    return -(-own_frames // embedding.hop_frames)


def with_embedding(model: Model) -> Model:
    """Return a head joined to its embedding, which takes frames; any other model as it is.

    For measurements of one model: a `Spotter` computes the embedding once for many heads.

    Raises
    ------
    ModelError
        As `open_embedding`.
    """
    return _JoinedModel(model) if model.manifest.takes else model


def model_path(name: str | os.PathLike[str]) -> Path:
    """Return the file of a bundled model's name, or the path itself.

    Raises
    ------
    ModelError
        If it is neither.
    """
    try:
        name = os.fspath(name)
    except TypeError:
        raise ModelError(
            f'A model is named by str or path. Received: {name!r}. Pass "commands", for example.'
        ) from None
    bundled = bundled_models()
    if name in bundled:
        return bundled[name]
    if name == _EMBEDDING:
        return _folder() / f"{name}.tflite"
    if not (path := expanded(name, what="a model's path", error=ModelError)).is_file():
        raise ModelError(
            f"A model must be a bundled model's name or a file. Received: {name}."
            f"{did_you_mean(name, bundled)} Bundled: {', '.join(bundled) or 'none'}."
        )
    return path


def _digest(content: bytes) -> str:
    import hashlib  # 4 MB, for heads alone

    return hashlib.sha256(content).hexdigest()


def _folder() -> Path:
    return Path(str(files("kws.models")))


def _affine(manifest: Manifest) -> tuple[Array, Array] | None:
    if manifest.input_affine is None:
        return None
    scale, offset = manifest.input_affine.scale, manifest.input_affine.offset
    return np.array(scale, np.float32), np.array(offset, np.float32)


def _interpreter(content: bytes, *, n_threads: int, reference: bool) -> Any:
    if content[4:8] != TFLITE_MARK:
        return OnnxInterpreter(content, n_threads=n_threads)
    module = _runtime()
    options: dict[str, Any] = {"num_threads": n_threads}
    if reference:
        kernels = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        options["experimental_op_resolver_type"] = kernels
    try:
        with quiet_stderr():  # of "Created TensorFlow Lite XNNPACK delegate"
            interpreter = module.Interpreter(model_content=content, **options)
            interpreter.allocate_tensors()
    except (ImportError, SystemError) as error:  # its C++ half, which is loaded only here
        raise ModelError(
            f"{module.__name__.split('.')[0]} must fit the installed numpy. Received: numpy "
            f"{np.__version__}. Run `pip install 'numpy<2'`, or `pip install ai-edge-litert`."
        ) from error
    return interpreter


def _runtime() -> ModuleType:
    """Import LiteRT, or tflite-runtime in its place."""
    try:
        return importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        try:
            return importlib.import_module("tflite_runtime.interpreter")
        except ImportError as error:
            raise ModelError(
                "A model needs an interpreter, ai-edge-litert or tflite-runtime. Received: neither "
                "can be imported. Run `pip install ai-edge-litert`, or on 32-bit ARM with Python "
                "up to 3.11 `pip install tflite-runtime 'numpy<2'`."
            ) from error


def _cannot_run(error: Exception, content: bytes) -> ModelError:
    reason = " ".join(str(error).split()) or type(error).__name__
    is_tflite = content[4:8] == TFLITE_MARK
    runtime = _runtime().__name__.split(".")[0] if is_tflite else "onnxruntime"
    return ModelError(
        f"The model must be one that {runtime} can run. Received: "
        f"{reason}. Copy or export it again, or update the interpreter."
    )


def _pick(tensors: dict[str, Any], name: str, *, what: str, manifest: Manifest) -> Any:
    """Return the tensor of that name, or the only one."""
    if not name and len(tensors) == 1:
        return next(iter(tensors.values()))
    if name not in tensors:
        raise _disagrees(manifest, f"an {what} tensor `{name}`", ", ".join(tensors))
    return tensors[name]


def _disagrees(manifest: Manifest, says: str, received: str) -> ModelError:
    return ModelError(
        f"The manifest of `{manifest.name}` must agree with its tensors: it says {says}. "
        f"Received: {received}. Export the model again."
    )


class _Scale:
    """A tensor's quantisation, value = scale (q - zero_point); float tensors have none."""

    def __init__(self, tensor: Any) -> None:
        scale, zero_point = tensor["quantization"]
        self._dtype = np.dtype(tensor["dtype"])
        self.parameters = (scale, zero_point, self._dtype)
        self._is_float = not scale
        self._scale, self._zero_point = np.float32(scale), np.float32(zero_point)
        self._values: Array | None = None
        if self._is_float:
            return
        self._per_value = np.float32(1 / scale)
        limits = np.iinfo(self._dtype)
        self._least, self._most = np.float32(limits.min), np.float32(limits.max)
        if self._dtype.itemsize == 1:  # looked up, which takes half the time
            integers = np.arange(256, dtype=np.uint8).view(self._dtype)
            self._values = (integers.astype(np.float32) - self._zero_point) * self._scale

    def to_integers(self, values: Array) -> Array:
        """Round to the tensor's integers, saturating at their limits."""
        if self._is_float:
            return values.astype(self._dtype)
        scaled: Array = values * self._per_value
        np.rint(scaled, out=scaled)
        scaled += self._zero_point
        np.maximum(scaled, self._least, out=scaled)
        np.minimum(scaled, self._most, out=scaled)
        return scaled.astype(self._dtype)

    def to_values(self, integers: Array) -> Posteriors:
        """Return what the integers stand for."""
        if self._values is not None:
            return self._values.take(integers.view(np.uint8))
        values = integers.astype(np.float32)
        return values if self._is_float else (values - self._zero_point) * self._scale


class _LastInput:
    """A scale that gives the same integers again for the array that it was given last."""

    def __init__(self, scale: _Scale) -> None:
        self._scale = scale
        self._last: tuple[Array | None, Array] = None, np.empty(0)

    def to_integers(self, values: Array) -> Array:
        """Round to the tensor's integers; see `_Scale.to_integers`."""
        last = self._last
        if last[0] is not values:
            last = self._last = values, self._scale.to_integers(values)
        return last[1]
