"""Tables of the pipeline: source, gate, model and decision."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta
from msgspec.structs import force_setattr

from kws.command_lines import shell_operator
from kws.config.table import Milliseconds, Probability, Table, without_login
from kws.errors import ConfigError
from kws.names import nfc

__all__ = [
    "Channel",
    "DecisionSettings",
    "GateSettings",
    "ListenerSettings",
    "ModelSettings",
    "SampleFormat",
    "SourceSettings",
]

Channel: TypeAlias = Annotated[int, Meta(ge=0, le=63)] | Literal["loudest"] | None
SampleFormat = Literal["s16le", "s32le", "f32le"]


class ModelSettings(Table, frozen=True, kw_only=True):
    """`[model]`: the model, and how it is run."""

    name: str = "commands"
    """A bundled model's name (`kws models` lists them) or the path of a .tflite or .onnx file."""
    n_threads: Annotated[int, Meta(ge=1, le=64)] = 1
    """Threads of the interpreter; one is fastest for models of this size."""


class SourceSettings(Table, frozen=True, kw_only=True):
    """`[source]` or one of `[[sources]]`: an audio source."""

    name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """The source's name in events of the daemon; None: its device, else its input, and `command 1`,
    `command 2` for commands, which may hold secrets."""
    input: str = "mic"
    """`mic`, a file, `-` for raw PCM on standard input, `udp://HOST:PORT` or tcp://."""
    command: list[str] | str | None = None
    """In place of `input`: a program that writes raw audio or a WAV to standard output."""
    device: str | None = None
    """A microphone's name, part of it, its number, or an ALSA string; None is the default one."""
    chunk_ms: Annotated[int, Meta(ge=10, le=1000)] = 80
    """Audio processed at once: a shorter chunk lowers the delay, a longer one the CPU load."""
    stall_s: Annotated[float, Meta(ge=0.5, le=3600.0)] = 3.0
    """A microphone without audio for so long is reopened: many stop without an error."""
    silent_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 10.0
    """Digital silence from a live source for so long is reported; 0: never."""
    rate_hz: Annotated[int, Meta(ge=1_000, le=768_000)] = 16_000
    """Sample rate of raw audio from a command, a port or standard input, and of arecord."""
    n_channels: Annotated[int, Meta(ge=1, le=64)] = 1
    """Interleaved channels of raw audio."""
    sample_format: SampleFormat = "s16le"
    """Samples of raw audio from a command, a port or standard input; full scale of floats is 1."""
    channel: Channel = None
    """The channel to use, counted from 0; `loudest`: that of most energy; None: the mean of all."""
    gain_db: Annotated[float, Meta(ge=-60.0, le=60.0)] = 0.0
    """Gain; samples beyond full scale are clipped."""
    high_pass_hz: Annotated[float, Meta(ge=10.0, le=2000.0)] | None = None
    """Cut-off of a high-pass filter against hum, wind and offset; None: no filter."""
    auto_gain: Annotated[int, Meta(ge=0, le=31)] = 0
    """Automatic gain: target level in dB below full scale; 0 is off."""
    noise_suppression: Annotated[int, Meta(ge=0, le=4)] = 0
    """0 is off, 4 the strongest. It can cost detections: models are trained with noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "://" in self.input and not self.input.startswith(("udp://", "tcp://")):
            raise ConfigError(
                f"An `input` that is a URL must be udp://HOST:PORT or tcp://HOST:PORT. Received: "
                f"{without_login(self.input)}. Decode it: `ffmpeg -i URL -f s16le -ar 16000 -ac 1 "
                f"- | kws listen -`; in kws.toml, set that ffmpeg line as `command`."
            )
        if isinstance(self.command, str) and (found := shell_operator(self.command)):
            raise ConfigError(
                f"The `command` of a source is not run by a shell. Received: `{found}` in "
                f'`{self.command}`. Write `command = ["sh", "-c", "…"]` with the line in the '
                f"last string, or quote the `{found}`."
            )

    @property
    def label(self) -> str:
        """The source's name in events: its name, else its device or input.

        A command may hold secrets, so that a source without a name is called `command`.
        """
        return self.name or ("command" if self.command else self.device or self.input)


class GateSettings(Table, frozen=True, kw_only=True):
    """`[gate]`: the model runs only where voice activity is detected."""

    enabled: bool = True
    """False runs the model on every frame."""
    aggressiveness: Annotated[int, Meta(ge=0, le=3)] = 1
    """Mode of webrtcvad: 0 passes most audio, 3 least."""
    hangover_ms: Milliseconds = 700
    """How long the gate stays open after the last voiced block of 20 ms."""
    pre_roll_ms: Annotated[int, Meta(ge=0, le=2000)] = 500
    """Audio before the opening that is replayed, so that no onset is lost."""


class DecisionSettings(Table, frozen=True, kw_only=True):
    """`[decision]`: when a posterior becomes a detection; None: as the model's manifest says."""

    threshold: Probability | None = None
    """Smoothed posterior at which any keyword fires."""
    thresholds: dict[str, Probability] = {}
    """Threshold of each keyword; overrides `threshold`."""
    false_alarms_per_hour: Annotated[float, Meta(gt=0.0)] | None = None
    """A budget in place of a threshold; converted by the model's calibration table."""
    smoothing_ms: Milliseconds | None = None
    """Length of the moving average over posteriors."""
    refractory_ms: Milliseconds | None = None
    """Time after a detection without another one."""
    patience: Annotated[int, Meta(ge=1, le=100)] = 1
    """Outputs of the model in a row whose average must reach the threshold, as openWakeWord's."""
    phrases: list[str] = []
    """Sequences of keywords to detect, for a CTC model; empty: those of the model."""

    def __post_init__(self) -> None:
        Table.__post_init__(self)
        force_setattr(self, "thresholds", {nfc(word): p for word, p in self.thresholds.items()})
        force_setattr(self, "phrases", [nfc(phrase) for phrase in self.phrases])


class ListenerSettings(ModelSettings, frozen=True, kw_only=True):
    """One of `[[models]]`: a model beside others, with its own decision settings."""

    decision: DecisionSettings | None = None
    """Replaces the whole of `[decision]`; written as `[models.decision]` below its `[[models]]`."""
