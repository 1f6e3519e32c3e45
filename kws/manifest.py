"""What a model file says about itself, and how that is read from and written to the file.

A model is one plain `.tflite` with `kws.json` appended as a ZIP archive (the TFLite Metadata
convention for associated files): interpreters read the flatbuffer and never see the archive,
`unzip -l` lists it. A foreign NAME.tflite may have its manifest beside it, as NAME.json or
NAME.kws.json, which come before the one inside.
"""

import codecs
import io
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from kws.errors import ModelError
from kws.names import nfc

__all__ = [
    "SILENCE",
    "TFLITE_MARK",
    "UNKNOWN",
    "Affine",
    "CalibrationBasis",
    "CalibrationPoint",
    "DataSource",
    "DecisionDefaults",
    "EmbeddingReference",
    "FeatureSettings",
    "Manifest",
    "SpeakerCheck",
    "StateTensor",
    "embedding_inside",
    "has_manifest",
    "manifest_inside",
    "pack",
    "read_manifest",
    "repack",
    "sidecar",
]

SILENCE = "_silence_"
UNKNOWN = "_unknown_"

TFLITE_MARK = b"TFL3"
"""Bytes 4 to 8 of a TFLite file."""

_FILE_NAME = "kws.json"
_EMBEDDING_NAME = "embedding.tflite"
_MAX_JSON_BYTES = 1 << 20
_MAX_EMBEDDING_BYTES = 1 << 24

# What zipfile raises on damaged bytes: its own error, a missing, encrypted or unknown entry, a bad
# offset or file name, and the decompressor's.
_NO_ARCHIVE = (
    zipfile.BadZipFile,
    KeyError,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
)


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the manifest: immutable, keyword-only, refusing keys it does not know."""


class FeatureSettings(_Part, frozen=True, kw_only=True):
    """How audio becomes frames; defaults as in `python_speech_features.mfcc`, unless noted."""

    kind: Literal["mfcc", "logmel", "spectrogram", "micro"] = "mfcc"
    """`micro`: those of the micro frontend (`kws.micro_features`), which has no other settings."""
    sample_rate_hz: Annotated[int, Meta(ge=8000, le=48_000)] = 16_000
    window_samples: Annotated[int, Meta(ge=16, le=8192)] = 400
    hop_samples: Annotated[int, Meta(ge=16, le=8192)] = 160
    n_fft: Annotated[int, Meta(ge=16, le=8192)] = 512
    window: Literal["rectangular", "hamming", "hann", "periodic_hann"] = "rectangular"
    taper_samples: Annotated[int, Meta(ge=16, le=8192)] | None = None
    """Length of the window's shape, between zeros in the middle of the frame; None: all of it."""
    n_mels: Annotated[int, Meta(ge=2, le=256)] = 26
    low_hz: Annotated[float, Meta(ge=0.0)] = 0.0
    high_hz: float | None = None
    """Upper edge of the filters; None is half the sample rate."""
    mel_filters: Literal["htk", "slaney", "tensorflow"] = "htk"
    """`htk`: peaks of 1, edges rounded down to FFT bins. `slaney`: unit area, exact edges.
    `tensorflow`: peaks of 1, exact edges, straight over mel."""
    n_mfcc: Annotated[int, Meta(ge=1, le=256)] = 13
    dct: Literal["orthonormal", "htk"] = "orthonormal"
    """`htk`: the zeroth coefficient is larger by the root of 2, as in HTK and TensorFlow."""
    preemphasis: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.97
    lifter: Annotated[int, Meta(ge=0)] = 22
    energy: bool = True
    """MFCC only: replace the zeroth coefficient with the log of the frame's energy."""
    floor: Annotated[float, Meta(gt=0.0)] = 2.220446049250313e-16
    """Least power before the logarithm, on the scale of `sample_scale`; the oracle's is epsilon."""
    spectrum: Literal["power", "magnitude"] = "power"
    """What the filters sum over FFT bins."""
    sample_scale: Literal["int16", "unit"] = "int16"
    """Full scale of the samples: 32768 or 1."""
    log_addend: Annotated[float, Meta(ge=0.0)] = 0.0
    """Added to power or magnitude before the logarithm."""
    normalization: Literal["none", "window_peak"] = "none"
    """`window_peak`: the largest sample of a window model's window is brought to full scale."""
    periodogram: bool = True
    """Divide power or magnitude by `n_fft`."""
    log_base: Literal["e", "10"] = "e"
    log_offset: float = 0.0
    """Added to the logarithm."""

    def __post_init__(self) -> None:
        if self.window_samples > self.n_fft:
            raise ValueError(f"n_fft must be >= window_samples; received {self.n_fft}")
        if self.hop_samples > self.window_samples:
            raise ValueError(f"hop_samples must be <= window_samples; received {self.hop_samples}")
        if self.taper_samples is not None and self.taper_samples > self.window_samples:
            raise ValueError(
                f"taper_samples must be <= window_samples; received {self.taper_samples}"
            )
        if self.normalization != "none" and self.preemphasis:
            raise ValueError("normalization window_peak must go without preemphasis")
        if self.kind == "mfcc" and self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc must be <= n_mels; received {self.n_mfcc}")
        nyquist_hz = self.sample_rate_hz / 2
        high_hz = nyquist_hz if self.high_hz is None else self.high_hz
        if not self.low_hz < high_hz <= nyquist_hz:
            raise ValueError(
                f"high_hz must be > low_hz and <= sample_rate_hz / 2; received {high_hz:g}"
            )

    @property
    def n_features(self) -> int:
        """Values in a frame; with `window_peak`, bands and a peak, of which `n_values` are made."""
        if self.normalization == "none":
            return self.n_values
        n_bands = self.n_fft // 2 + 1 if self.kind == "spectrogram" else self.n_mels
        return n_bands + int(self.kind == "mfcc" and self.energy) + 1

    @property
    def n_values(self) -> int:
        """Values of a frame that a network takes."""
        if self.kind == "spectrogram":
            return self.n_fft // 2 + 1
        return self.n_mfcc if self.kind == "mfcc" else self.n_mels


class StateTensor(_Part, frozen=True, kw_only=True):
    """One recurrent or convolutional state of a step model: where it goes in and comes out."""

    input: str
    output: str
    shape: tuple[int, ...]


class DecisionDefaults(_Part, frozen=True, kw_only=True):
    """How this model's posteriors are best turned into detections."""

    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    smoothing_ms: Annotated[int, Meta(ge=0, le=10_000)] = 60
    refractory_ms: Annotated[int, Meta(ge=0, le=60_000)] = 600
    word_ms: Annotated[int, Meta(ge=0, le=10_000)] = 600
    """Usual length of a word of this model: how far before its end a detection starts."""
    delay_ms: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """How long after a word's end the model was trained to answer: subtracted from `end_s`."""
    kind: Literal["words", "ctc"] = "words"
    """`words`: each posterior has its threshold. `ctc`: outputs spell out a sequence of words, with
    the label of silence as the blank."""
    phrases: tuple[str, ...] = ()
    """`ctc`: sequences of keywords to detect, as "one two three"; empty: every sequence."""
    pause_ms: Annotated[int, Meta(ge=20, le=600)] = 400
    """`ctc`: how long nothing is said after an utterance before it is decoded."""
    beam: Annotated[int, Meta(ge=1, le=64)] = 8
    """`ctc`: how many beginnings are kept in decoding; 1 is greedy."""

    def __post_init__(self) -> None:
        force_setattr(self, "phrases", tuple(map(nfc, self.phrases)))


class CalibrationPoint(_Part, frozen=True, kw_only=True):
    """Threshold per keyword at which all keywords together give this many false alarms an hour."""

    false_alarms_per_hour: Annotated[float, Meta(gt=0.0)]
    thresholds: dict[str, Annotated[float, Meta(ge=0.0, le=1.0)]]
    miss_rate: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    """Share of the words of all keywords that are missed there; None: not measured."""

    def __post_init__(self) -> None:
        force_setattr(self, "thresholds", {nfc(word): p for word, p in self.thresholds.items()})


class CalibrationBasis(_Part, frozen=True, kw_only=True):
    """What the calibration table was measured on: how far it can be trusted."""

    hours: Annotated[float, Meta(gt=0.0)]
    """Audio that was listened to."""
    speech_hours: Annotated[float, Meta(ge=0.0)]
    """Different background speech in it; the same sentences come again in other noise."""
    words: Annotated[int, Meta(ge=0)]
    """Keywords said in it."""
    conditions: tuple[str, ...] = ()
    """Such as `clean` and `10 dB`."""


class DataSource(_Part, frozen=True, kw_only=True):
    """Something the model was trained on."""

    name: str
    licence: str
    clips: int | None = None
    hours: float | None = None


class _OutdatedHead(msgspec.Struct):
    templates: list[msgspec.Raw] = []


class _Outdated(msgspec.Struct):
    """The part of a manifest that tells a word enrolled by an earlier version."""

    head: _OutdatedHead | None = None


class EmbeddingReference(_Part, frozen=True, kw_only=True):
    """The embedding model whose vectors a head takes in place of feature frames."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """Digest of its file."""
    size: Annotated[int, Meta(ge=1, le=4096)]
    """Values of a vector."""
    hop_frames: Annotated[int, Meta(ge=1, le=4096)]
    """Feature frames of each vector."""


class SpeakerCheck(_Part, frozen=True, kw_only=True):
    """A linear score of the statistics of a word, by which its speaker is verified."""

    weights: tuple[float, ...]
    """One for each of `kws.speaker.word_statistics`."""
    bias: float
    threshold: float
    """Least score of a detection: 1 is the mean of the enrolled recordings, other voices have 0."""


class Affine(_Part, frozen=True, kw_only=True):
    """What each value of an input is multiplied by, and what is added to it then."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]


class Manifest(_Part, frozen=True, kw_only=True):
    """The model's self-description."""

    format: Literal[1] = 1
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
    description: str = ""
    licence: str = ""
    labels: tuple[str, ...]
    """One per output of the model, in order; those in `_underscores_` are not keywords."""
    kind: Literal["step", "window"]
    features: FeatureSettings
    n_frames: Annotated[int, Meta(ge=1, le=4096)]
    """step: frames a call takes; window: frames in the window."""
    hop_frames: Annotated[int, Meta(ge=1, le=4096)]
    """Frames between two calls; equals `n_frames` in a step model."""
    input: str = ""
    """Name of the tensor that takes frames; empty where the model has only one input."""
    output: str = ""
    """Name of the tensor that gives posteriors; empty where the model has only one output."""
    states: tuple[StateTensor, ...] = ()
    quantization: Literal["int8", "int16x8", "float32"] = "int8"
    kernels: Literal["fastest", "reference"] = "fastest"
    """`reference`: the interpreter's own, with the results of microcontrollers to the bit."""
    decision: DecisionDefaults = DecisionDefaults()
    calibration: tuple[CalibrationPoint, ...] = ()
    calibrated_on: CalibrationBasis | None = None
    embedding: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """Size of the vectors that the network gives in place of posteriors; None: it has labels."""
    head: dict[str, msgspec.Raw] | None = None
    """Of words enrolled before there was a speech embedding; not used any more."""
    takes: EmbeddingReference | None = None
    """A head: the embedding model whose vectors are its frames; `features` are those of that."""
    input_affine: Affine | None = None
    """Applied to each frame or vector before the network, such as to undo a standardisation."""
    context_frames: Annotated[int, Meta(ge=0, le=4096)] = 0
    """Frames that an output depends on; the gate's pre-roll reaches at least so far back."""
    speaker: SpeakerCheck | None = None
    """Of a word enrolled with `--only-me`: who may say it."""
    data: tuple[DataSource, ...] = ()

    def __post_init__(self) -> None:
        force_setattr(self, "labels", tuple(map(nfc, self.labels)))
        if self.embedding is None:
            self._check_labels()
        elif self.labels or self.kind != "step":
            raise ValueError("a model with `embedding` must be a step model without labels")

    def _check_labels(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be present and differ from one another")
        # They reach terminals and environments, where control characters do harm.
        if not all(label and label.isprintable() for label in self.labels):
            raise ValueError("labels must be printable text")
        if not self.keywords:
            raise ValueError("labels must hold at least one keyword")
        if self.kind == "step" and self.hop_frames != self.n_frames:
            raise ValueError("a step model must have hop_frames equal to n_frames")
        if self.hop_frames > self.n_frames:
            raise ValueError("hop_frames must be <= n_frames")
        self._check_affine()
        if self.kind != "window" and self.features.normalization != "none":
            raise ValueError("features.normalization must be of a window model")
        if self.decision.kind == "ctc" and SILENCE not in self.labels:
            raise ValueError(f"a model with decision.kind ctc must have the label {SILENCE}")
        for phrase in self.decision.phrases:
            if not phrase.split() or set(phrase.split()) - set(self.keywords):
                raise ValueError("decision.phrases must be made of keywords of the model")
        for point in self.calibration:
            if set(point.thresholds) - set(self.keywords):
                raise ValueError("calibration must name only keywords of the model")

    def _check_affine(self) -> None:
        if affine := self.input_affine:
            n_values = self.takes.size if self.takes else self.features.n_values
            if {len(affine.scale), len(affine.offset)} != {n_values}:
                raise ValueError(f"input_affine must have {n_values} values, one for each input")

    @property
    def keywords(self) -> tuple[str, ...]:
        """The labels that can be detected, in the order of the model's outputs."""
        return tuple(label for label in self.labels if not label.startswith("_"))

    @property
    def call_samples(self) -> int:
        """Samples between two calls."""
        frames = self.takes.hop_frames if self.takes else 1
        return self.hop_frames * frames * self.features.hop_samples

    @property
    def n_inputs(self) -> int:
        """Values of a frame that a step is given."""
        return self.takes.size if self.takes else self.features.n_features

    @property
    def context_ms(self) -> float:
        """Audio that an output depends on, for the pre-roll; 0: not stated."""
        return 1000 * self.context_frames * self.features.hop_samples / self.features.sample_rate_hz

    @property
    def call_ms(self) -> float:
        """Time between two calls."""
        return 1000 * self.call_samples / self.features.sample_rate_hz


def read_manifest(path: Path) -> tuple[Manifest, bytes]:
    """Read a model file.

    Returns
    -------
    Manifest, bytes
        The self-description and the flatbuffer (the whole file; interpreters ignore the archive).

    Raises
    ------
    ModelError
        If the file is missing, not TFLite, cut short, or its manifest is absent or breaks a rule.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The model must be a readable file. Received: {path} ({error.strerror}). "
            f"`kws models` lists the bundled ones."
        ) from error
    if content[4:8] != TFLITE_MARK:
        raise ModelError(
            f"The model must be a whole .tflite file. Received: {path}, {len(content)} bytes "
            f"without its mark TFL3. Copy it again, or make one with `kws export`."
        )
    text, is_beside = _find_json(path, content)
    manifest = _decode(text, path)
    if is_beside and manifest.kind == "window":
        _check_features_stated(text, manifest, path)
    return manifest, content


def has_manifest(path: Path, content: bytes) -> bool:
    """Return whether a model file has a manifest, inside or beside it, readable or not."""
    if sidecar(path) or path.with_name(_FILE_NAME).is_file():
        return True
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _FILE_NAME in archive.namelist()
    except _NO_ARCHIVE:
        return False


def pack(flatbuffer: bytes, manifest: Manifest, *, embedding: bytes | None = None) -> bytes:
    """Return the bytes of a model file: the flatbuffer with its manifest appended as a ZIP.

    The same input gives the same bytes: the archive carries no time.

    Parameters
    ----------
    flatbuffer : bytes
    manifest : Manifest
    embedding : bytes, optional
        The file of the embedding model that a head takes, to be kept in the archive.
    """
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in ((_FILE_NAME, text), (_EMBEDDING_NAME, embedding)):
            if content is not None:
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                writer.writestr(entry, content)
    return flatbuffer + archive.getvalue()


def repack(content: bytes, manifest: Manifest, *, embedding: bytes | None = None) -> bytes:
    """Return the bytes of a model file with another manifest in place of the one it has.

    An archive of somebody else's stays, before the new one. So does an embedding inside, unless
    another is given.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            ours = set(archive.namelist()) <= {_FILE_NAME, _EMBEDDING_NAME}
            end = archive.infolist()[0].header_offset if ours else len(content)
    except (*_NO_ARCHIVE, IndexError):
        end = len(content)
    return pack(content[:end], manifest, embedding=embedding or embedding_inside(content))


def embedding_inside(content: bytes) -> bytes | None:
    """Return the file of the embedding model that a model file holds; None without a whole one."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _extract(archive, _EMBEDDING_NAME, most=_MAX_EMBEDDING_BYTES)
    except _NO_ARCHIVE:
        return None


def manifest_inside(content: bytes, *, name: str) -> Manifest:
    """Return the manifest in the bytes of a model file, whose name is for errors.

    Raises
    ------
    ModelError
        If there is none, or it breaks a rule.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            text = _extract(archive, _FILE_NAME, most=_MAX_JSON_BYTES)
    except _NO_ARCHIVE as error:
        raise ModelError(
            f"A model must carry its manifest {_FILE_NAME}. Received: {name} without one that can "
            f"be read. Export the model again."
        ) from error
    return _decode(_limited(text, f"inside {name}"), Path(name))


def sidecar(path: Path) -> Path | None:
    """Return the manifest beside a model file, NAME.json or NAME.kws.json; None if there is none.

    A NAME.json without `labels` and `features` is another tool's, and left alone.
    """
    plain, ours = path.with_suffix(".json"), path.with_suffix(".kws.json")
    if plain.is_file() and _has_manifest_keys(_beside(plain)):
        return plain
    return ours if ours.is_file() else None


def _find_json(path: Path, content: bytes) -> tuple[bytes, bool]:
    """Return the manifest's text, and whether it lies beside the model."""
    if beside := sidecar(path):
        return _beside(beside), True
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _limited(
                _extract(archive, _FILE_NAME, most=_MAX_JSON_BYTES), f"inside {path}"
            ), False
    except _NO_ARCHIVE as error:
        shared = path.with_name(_FILE_NAME)
        neighbours = sorted(one.name for one in path.parent.glob("*.tflite") if one != path)
        if shared.is_file() and not neighbours:
            return _beside(shared), True
        if shared.is_file():
            raise ModelError(
                f"A {_FILE_NAME} beside a model must be of the only model in its folder. Received: "
                f"{shared} beside {path.name} and {neighbours[0]}. Rename it after its model, such "
                f"as {path.with_suffix('.kws.json').name}."
            ) from error
        raise ModelError(
            f"A model must carry its manifest {_FILE_NAME} inside the file, or beside it as "
            f"{path.with_suffix('.kws.json').name}. Received: {path} with none that can be read: "
            f"the file is cut short or not from kws. Copy it again, export it with `kws export`, "
            f"or write {path.with_suffix('.kws.json').name}."
        ) from error


def _has_manifest_keys(text: bytes) -> bool:
    """Return whether JSON has keys that tell a manifest; JSON that is broken may be one."""
    try:
        keys = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b'"labels"' in text and b'"features"' in text
    return {"labels", "features"} <= set(keys)


def _extract(archive: zipfile.ZipFile, name: str, *, most: int) -> bytes:
    """Unpack no more than one byte over the limit, whatever size the archive claims."""
    entry = archive.getinfo(name)
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise zipfile.BadZipFile("compressed in a way that `pack` does not use")
    with archive.open(entry) as stream:
        return stream.read(most + 1)


def _beside(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_JSON_BYTES + 1)
            return _limited(text.removeprefix(codecs.BOM_UTF8), f"as {path}")
    except OSError as error:
        raise ModelError(
            f"The manifest beside a model must be readable. Received: {path} ({error.strerror}). "
            f"Change its permissions."
        ) from error


def _limited(text: bytes, where: str) -> bytes:
    if len(text) > _MAX_JSON_BYTES:
        raise ModelError(
            f"{_FILE_NAME} must be at most {_MAX_JSON_BYTES} bytes. Received: more than that "
            f"{where}. Export the model again."
        )
    return text


def _decode(text: bytes, path: Path) -> Manifest:
    _check_not_outdated(text, path)
    try:
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{_FILE_NAME} must keep the manifest's rules. Received: {error} in {path}. "
            f"Export the model again, or mend that key."
        ) from error


def _check_not_outdated(text: bytes, path: Path) -> None:
    """Refuse words enrolled on a network that does not come with kws any more."""
    try:
        head = msgspec.json.decode(text, type=_Outdated).head
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # reported below
    if head and head.templates:
        raise ModelError(
            f"An enrolled word must be a head on the speech embedding. Received: {path}, enrolled "
            f"by an earlier version of kws. Run `kws enroll` again with the same recordings."
        )


def _check_features_stated(text: bytes, manifest: Manifest, path: Path) -> None:
    """Refuse a foreign window model unless all that its features depend on is stated.

    Defaults are those of `python_speech_features`: plausible, and wrong for most other tools.
    """
    stated = msgspec.json.decode(text, type=dict[str, msgspec.Raw])["features"]
    keys = msgspec.json.decode(stated, type=dict[str, msgspec.Raw])
    missing = [key for key in _features_to_state(manifest.features.kind) if key not in keys]
    if missing:
        raise ModelError(
            f"A window model of another tool must state how its features are computed, since other "
            f"features give plausible nonsense. Received: {path} without {', '.join(missing)}. "
            f"State each in `features` as the model was trained; docs/architecture.md lists them."
        )


def _features_to_state(kind: str) -> list[str]:
    """Return the keys of `features` that frames of a kind depend on."""
    optional = {"sample_rate_hz", "taper_samples", "high_hz", "log_base", "log_offset"}
    if kind != "mfcc":
        optional |= {"n_mfcc", "dct", "lifter", "energy"}
    if kind == "spectrogram":
        optional |= {"n_mels", "low_hz", "mel_filters"}
    return [key for key in FeatureSettings.__struct_fields__ if key not in optional]
