"""Settings of the runtime, as read from kws.toml; every key, its unit, its default and its rule.

Unknown keys and wrong types are errors that name the key. Command-line options override the file.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from kws.errors import ConfigError, HookError, did_you_mean

__all__ = [
    "Config",
    "DaemonSettings",
    "DecisionSettings",
    "GateSettings",
    "HookSettings",
    "ListenerSettings",
    "ModelSettings",
    "RecordingSettings",
    "SourceSettings",
    "load_config",
    "parse_config",
]

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]
HookEvent = Literal["detection", "start", "listening", "stalled", "recovered", "error", "stop"]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of kws.toml: immutable, keyword-only, refusing keys it does not know."""


class ModelSettings(_Table, frozen=True, kw_only=True):
    """`[model]`: what listens."""

    name: str = "commands"
    """A bundled model's name (`kws models` lists them) or the path of a .tflite file."""
    n_threads: Annotated[int, Meta(ge=1, le=64)] = 1
    """Threads of the interpreter; one is fastest for models of this size."""


class SourceSettings(_Table, frozen=True, kw_only=True):
    """`[source]` or one of `[[sources]]`: where audio comes from."""

    name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """What events of the daemon call it; None is its device, or else its input."""
    input: str = "mic"
    """`mic`, a file, `-` for raw s16le on standard input, `udp://HOST:PORT` or tcp://."""
    command: list[str] | str | None = None
    """In place of `input`: a program that writes raw s16le or a WAV to standard output."""
    device: str | None = None
    """A microphone's name, part of it, its number, or an ALSA string; None is the default one."""
    chunk_ms: Annotated[int, Meta(ge=10, le=1000)] = 80
    """How much audio is handed over at once: less is quicker to answer, more is cheaper."""
    stall_s: Annotated[float, Meta(ge=0.5, le=3600.0)] = 3.0
    """Without audio for so long, a microphone counts as broken: many stop without an error."""
    rate_hz: Annotated[int, Meta(ge=1_000, le=768_000)] = 16_000
    """Of raw audio: what a command, a port or standard input gives, and arecord is asked for."""
    n_channels: Annotated[int, Meta(ge=1, le=64)] = 1
    """Of raw audio, interleaved."""
    channel: Annotated[int, Meta(ge=0, le=63)] | None = None
    """The one to hear, counted from 0; None is the mean of all."""
    gain_db: Annotated[float, Meta(ge=-60.0, le=60.0)] = 0.0
    """Makes it louder by so much; what goes beyond full scale is clipped."""
    high_pass_hz: Annotated[float, Meta(ge=10.0, le=2000.0)] | None = None
    """Damps what is lower than this: hum, wind, a microphone's offset."""
    auto_gain: Annotated[int, Meta(ge=0, le=31)] = 0
    """Lifts quiet voices to this many dB below full scale; 0 is off."""
    noise_suppression: Annotated[int, Meta(ge=0, le=4)] = 0
    """0 is off, 4 the strongest; can cost detections of models that were trained with noise."""

    @property
    def label(self) -> str:
        """What events call it: its name, else its command or device, else its input."""
        command = [self.command] if isinstance(self.command, str) else self.command or []
        return self.name or " ".join(command)[:64] or self.device or self.input


class GateSettings(_Table, frozen=True, kw_only=True):
    """`[gate]`: voice activity decides whether the model runs."""

    enabled: bool = True
    """False runs the model on every frame."""
    aggressiveness: Annotated[int, Meta(ge=0, le=3)] = 1
    """webrtcvad's mode: 0 lets most through, 3 least."""
    hangover_ms: Milliseconds = 700
    """How long the gate stays open after the last voiced 20 ms."""
    pre_roll_ms: Annotated[int, Meta(ge=0, le=2000)] = 500
    """How much audio before the opening is replayed, so that no onset is lost."""


class DecisionSettings(_Table, frozen=True, kw_only=True):
    """`[decision]`: when a posterior becomes a detection; None is as the model's manifest says."""

    threshold: Probability | None = None
    """Smoothed posterior at which any keyword fires."""
    thresholds: dict[str, Probability] = {}
    """Threshold per keyword; goes before `threshold`."""
    false_alarms_per_hour: Annotated[float, Meta(gt=0.0)] | None = None
    """A budget instead of a threshold; the model's calibration table turns one into the other."""
    smoothing_ms: Milliseconds | None = None
    """Length of the moving average over posteriors."""
    refractory_ms: Milliseconds | None = None
    """How long nothing fires after a detection."""
    phrases: list[str] = []
    """Sequences of keywords to detect, with a model that hears them; empty: as the model says."""


class ListenerSettings(ModelSettings, frozen=True, kw_only=True):
    """One of `[[models]]`: a model that listens beside others, with a decision of its own."""

    decision: DecisionSettings | None = None
    """Goes before the whole of `[decision]`, as `[models.decision]` below its `[[models]]`."""


class HookSettings(_Table, frozen=True, kw_only=True):
    """`[[hooks]]`: a command to run when a keyword is heard, or the daemon's state changes."""

    keyword: str = "*"
    """The keyword, or `*` for every one."""
    command: list[str] | str
    """Program and arguments; a string is split like a shell line, but no shell runs it."""
    shell: bool = False
    """True hands a string to /bin/sh; the event is in the environment, never in the line."""
    on: tuple[HookEvent, ...] = ("detection",)
    """What it runs on; all but `detection` happen to `kws daemon` only."""
    timeout_s: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 30.0
    """After this the command and all it started, in the background too, are killed."""
    max_running: Annotated[int, Meta(ge=1, le=64)] = 4
    """How many of this hook may run at once."""
    max_queued: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """How many more may wait until one has ended; an event beyond that is dropped and logged."""
    cooldown_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 0.0
    """How long after one event the next of the same keyword or state is passed over."""
    mute: bool = False
    """True lets the daemon hear nothing while the hook runs or waits."""
    mute_after_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 0.0
    """With `mute`: how much longer it hears nothing, as for the end of an echo."""
    awake_wav: str | None = None
    """A sound to play when the hook starts, by pw-play, paplay or aplay."""
    working_directory: str | None = None
    """Where the command runs; None is where kws was started."""
    user: str | None = None
    """The user it runs as; for that kws must run as root."""
    environment: dict[str, str] = {}
    """Variables added to those of kws; those of the event go before them."""
    keyword_on_stdin: bool = False
    """True writes the keyword alone to standard input, as wyoming-satellite does, not JSON."""


class RecordingSettings(_Table, frozen=True, kw_only=True):
    """`[recording]`: whether `kws daemon` keeps the audio around what it heard."""

    folder: str | None = None
    """Where; None records nothing."""
    format: Literal["wav", "flac"] = "wav"
    """Of 16 bits either way."""
    pre_roll_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 1.0
    """Audio before the word."""
    post_roll_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 0.5
    """Audio after it."""
    min_score: Probability | None = None
    """Keeps near misses too, from this score on; None keeps none."""
    max_clips: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """The oldest are removed beyond that."""
    max_days: Annotated[float, Meta(gt=0.0, le=36_500.0)] = 30.0
    """What is older is removed."""
    max_mb: Annotated[float, Meta(gt=0.0, le=1_000_000.0)] = 500.0
    """The oldest are removed beyond so many million bytes."""


class DaemonSettings(_Table, frozen=True, kw_only=True):
    """`[daemon]`: what `kws daemon` does beside listening."""

    backlog_s: Annotated[float, Meta(ge=1.0, le=600.0)] = 10.0
    """Audio of each source that may wait while the machine is busy; then the oldest is dropped."""
    socket: Annotated[str, Meta(min_length=1)] | None = None
    """Path of the socket that `kws status` asks; None: kws.sock where the system has a place."""
    metrics_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    """Port of 127.0.0.1 at which Prometheus finds metrics; None is off."""
    log_format: Literal["text", "json"] = "text"
    """What logs on standard error are: lines to read, or JSON lines."""


class Config(_Table, frozen=True, kw_only=True):
    """The whole of kws.toml."""

    model: ModelSettings = ModelSettings()
    models: list[ListenerSettings] = []
    source: SourceSettings = SourceSettings()
    sources: list[SourceSettings] = []
    gate: GateSettings = GateSettings()
    decision: DecisionSettings = msgspec.field(default_factory=DecisionSettings)
    hooks: list[HookSettings] = []
    recording: RecordingSettings = RecordingSettings()
    daemon: DaemonSettings = DaemonSettings()

    @property
    def every_source(self) -> list[SourceSettings]:
        """`[[sources]]`, or else the one `[source]`."""
        return self.sources or [self.source]

    @property
    def every_model(self) -> list[ListenerSettings]:
        """`[[models]]`, or else the one `[model]`, each with the decision that holds for it."""
        models = self.models or [
            ListenerSettings(name=self.model.name, n_threads=self.model.n_threads)
        ]
        return [replace(one, decision=one.decision or self.decision) for one in models]


def load_config(path: Path) -> Config:
    """Read kws.toml.

    Raises
    ------
    ConfigError
        If the file is missing, not UTF-8 TOML, or breaks a rule; the message names the key.
    HookError
        If a `[[hooks]]` entry breaks a rule.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"The configuration file must be readable. Received: {path} ({error.strerror}). "
            f"Give its path with --config."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} must be UTF-8 text. Received: byte 0x{error.object[error.start]:02x} at "
            f"offset {error.start}. Save it as UTF-8."
        ) from error
    return parse_config(text, name=str(path))


def parse_config(text: str, *, name: str = "kws.toml") -> Config:
    """Read settings out of TOML text; errors as in `load_config`."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond all bounds
        raise ConfigError(f"{name} must be TOML. Received: {error}. Mend that line.") from error
    try:
        config = msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise _explain(problem, path.strip("`."), tables, name=name) from None
    _check_lists(tables, config, name=name)
    return config


def _check_lists(tables: dict[str, Any], config: Config, *, name: str) -> None:
    """Refuse `[source]` beside `[[sources]]`, and sources that no event could tell apart."""
    for one, many in (("source", "sources"), ("model", "models")):
        if one in tables and many in tables:
            raise ConfigError(
                f"{name} must hold either [{one}] or [[{many}]]. Received: both. "
                f"Write each as a [[{many}]]."
            )
        if tables.get(many) == []:
            raise ConfigError(
                f"`{many}` in the top level of {name} must hold at least one. Received: []. "
                f"Add a [[{many}]], or leave it out."
            )
    labels = [source.label for source in config.every_source]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"Each of [[sources]] in {name} must have a name of its own. Received: `{label}` "
                f"{labels.count(label)} times. Set `name` in each."
            )


def _explain(
    problem: str, path: str, tables: dict[str, Any], *, name: str
) -> ConfigError | HookError:
    """Turn msgspec's message into ours: the key, the rule, and the nearest key that exists."""
    kind = HookError if path.startswith("hooks") else ConfigError
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", problem, re.DOTALL):
        key, known = unknown.group(1), _table_of(path).__struct_fields__
        return kind(
            f"Every key in {name} must be one that kws knows. Received: `{key}` in {_place(path)}."
            f"{did_you_mean(key, known)} Known there: {', '.join(known)}."
        )
    if missing := re.fullmatch(r"Object missing required field `(.+)`", problem):
        key = missing.group(1)
        return kind(f"`{key}` must be set in {_place(path)} of {name}. Received: none. Add it.")
    parent, key, value = _look_up(path, tables)
    rule = _one_of(parent, key) if problem.startswith("Invalid enum value") else _rule(problem)
    is_list = path in {"hooks", "models", "sources"}
    remedy = f"Write [[{path}]], in two brackets." if is_list else "Change it."
    return kind(
        f"`{key}` in {_place(parent)} of {name} must be {rule}. Received: {_shown(value)}. {remedy}"
    )


def _look_up(path: str, tables: dict[str, Any]) -> tuple[str, str, Any]:
    """Split a path such as `hooks[0].command[1]` before its last key; return its value too.

    msgspec writes `[...]` where it could name the key of a dict: that is the first bad value.
    """
    value: Any = tables
    parent, key = "", ""
    for name, index in re.findall(r"([a-z_]+)|\[(\d+|\.\.\.)\]", path):
        if index == "...":
            is_good = _is_text if key == "environment" else _is_chance
            parent, key = f"{parent}.{key}", next(k for k, v in value.items() if not is_good(v))
            value = value[key]
        elif index:
            key, value = f"{key}[{index}]", value[int(index)]
        else:
            parent, key, value = f"{parent}.{key}".strip("."), name, value[name]
    return parent, key, value


def _is_chance(value: object) -> bool:
    return type(value) in {int, float} and 0 <= value <= 1  # type: ignore[operator]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _place(path: str) -> str:
    """Say where a table is: `gate` is [gate], `hooks[0]` the first [[hooks]]."""
    if entry := re.fullmatch(r"([a-z]+)\[(\d+)\](?:\.(.+))?", path):
        many, index, inner = entry.groups()
        within = f"[{inner}] of " if inner else ""
        return f"{within}entry {int(index) + 1} of [[{many}]]"
    return f"[{path}]" if path else "the top level"


def _rule(problem: str) -> str:
    """Put "Expected `int | null` <= 3, got `str`" in the words of a TOML file."""
    words = {
        "int": "a whole number",
        "float": "a number",
        "str": "a string",
        "bool": "true or false",
        "object": "a table",
        "array": "an array",
    }
    if problem.endswith("out of range"):
        return "a smaller number"
    _, types, rest = problem.split("`", 2)
    bound, _, _ = rest.partition(", got")
    return " or ".join(words[t] for t in types.split(" | ") if t in words) + bound


def _one_of(parent: str, key: str) -> str:
    """List the values of a key that takes only some."""
    hints: list[Any] = [get_type_hints(_table_of(parent))[key.partition("[")[0]]]
    words: list[str] = []
    for hint in hints:  # grows as it goes: what a type is made of
        parts = get_args(hint)
        (words if get_origin(hint) is Literal else hints).extend(parts)
    return "one of " + ", ".join(f"`{word}`" for word in words)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, list | str) else str(value)


def _table_of(path: str) -> type[msgspec.Struct]:
    """Return what defines the keys at a path such as `gate` or `hooks[0]`."""
    tables: dict[str, type[msgspec.Struct]] = {
        "": Config,
        "model": ModelSettings,
        "models": ListenerSettings,
        "models.decision": DecisionSettings,
        "source": SourceSettings,
        "sources": SourceSettings,
        "gate": GateSettings,
        "decision": DecisionSettings,
        "hooks": HookSettings,
        "recording": RecordingSettings,
        "daemon": DaemonSettings,
    }
    return tables[re.sub(r"\[\d+\]", "", path)]
