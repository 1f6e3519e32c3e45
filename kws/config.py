"""Settings of the runtime, one class for each table of kws.toml: keys, units, defaults, rules.

A value that breaks its rule is an error when the settings are made, in Python as from a file.
Command-line options override the file.
"""

import logging
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import fields, force_setattr, replace

from kws.command_lines import doubtful_words, shell_operator
from kws.config_files import merged, parse_toml, read_config_files
from kws.errors import ConfigError, HookError, did_you_mean
from kws.names import nfc
from kws.paths import relative_to_folder

__all__ = [
    "Config",
    "DaemonSettings",
    "DecisionSettings",
    "GateSettings",
    "HookSettings",
    "ListenerSettings",
    "ModelSettings",
    "MqttSettings",
    "RecordingSettings",
    "SourceSettings",
    "UiSettings",
    "WyomingSettings",
    "load_config",
    "parse_config",
]

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]
Channel: TypeAlias = Annotated[int, Meta(ge=0, le=63)] | Literal["loudest"] | None
SampleFormat = Literal["s16le", "s32le", "f32le"]
HookEvent = Literal[
    "detection", "start", "listening", "silent", "stalled", "recovered", "error", "stop"
]


_log = logging.getLogger("kws")


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of kws.toml: immutable, keyword-only, without unknown keys, valid once it is made."""

    _error: ClassVar[type[ConfigError | HookError]] = ConfigError

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                force_setattr(self, field.name, msgspec.convert(value, field.type))
            except msgspec.ValidationError as error:
                problem, _, place = str(error).partition(" - at `$")
                raise self._error(
                    f"`{field.name}{place.rstrip('`')}` of {type(self).__name__}: "
                    f"{_lowered(problem)}. Received: {value!r}. Change it."
                ) from None
            if _holds_nul(value):
                raise self._error(
                    f"`{field.name}` of {type(self).__name__} must be free of NUL characters. "
                    f"Received: {value!r}. Take them out."
                )


def _without_login(url: str) -> str:
    """Return a URL without the user and password in it."""
    return re.sub(r"//[^/@]*@", "//…@", url)


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return isinstance(value, list | tuple) and any(map(_holds_nul, value))


class ModelSettings(_Table, frozen=True, kw_only=True):
    """`[model]`: the model, and how it is run."""

    name: str = "commands"
    """A bundled model's name (`kws models` lists them) or the path of a .tflite or .onnx file."""
    n_threads: Annotated[int, Meta(ge=1, le=64)] = 1
    """Threads of the interpreter; one is fastest for models of this size."""


class SourceSettings(_Table, frozen=True, kw_only=True):
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
                f"{_without_login(self.input)}. Decode it: `ffmpeg -i URL -f s16le -ar 16000 -ac 1 "
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


class GateSettings(_Table, frozen=True, kw_only=True):
    """`[gate]`: the model runs only where voice activity is detected."""

    enabled: bool = True
    """False runs the model on every frame."""
    aggressiveness: Annotated[int, Meta(ge=0, le=3)] = 1
    """Mode of webrtcvad: 0 passes most audio, 3 least."""
    hangover_ms: Milliseconds = 700
    """How long the gate stays open after the last voiced block of 20 ms."""
    pre_roll_ms: Annotated[int, Meta(ge=0, le=2000)] = 500
    """Audio before the opening that is replayed, so that no onset is lost."""


_Model = TypeVar("_Model", bound=ModelSettings)


class DecisionSettings(_Table, frozen=True, kw_only=True):
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
        _Table.__post_init__(self)
        force_setattr(self, "thresholds", {nfc(word): p for word, p in self.thresholds.items()})
        force_setattr(self, "phrases", [nfc(phrase) for phrase in self.phrases])


class ListenerSettings(ModelSettings, frozen=True, kw_only=True):
    """One of `[[models]]`: a model beside others, with its own decision settings."""

    decision: DecisionSettings | None = None
    """Replaces the whole of `[decision]`; written as `[models.decision]` below its `[[models]]`."""


class HookSettings(_Table, frozen=True, kw_only=True):
    """`[[hooks]]`: a command to run on a detection, or when the daemon's state changes."""

    _error = HookError

    keyword: str = "*"
    """The keyword, or `*` for every one."""
    command: list[str] | str
    """Program and arguments; a string is split like a shell line, but not run by a shell."""
    shell: bool = False
    """True runs a string by /bin/sh; the event is in the environment, never in the line."""
    on: tuple[HookEvent, ...] = ("detection",)
    """Events that start it; all but `detection` are events of `kws daemon` only."""
    timeout_s: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 30.0
    """After this the command and all its descendants are killed."""
    max_running: Annotated[int, Meta(ge=1, le=64)] = 4
    """Processes of this hook at once."""
    max_queued: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """Events that may wait for one to end; an event beyond that is dropped and logged."""
    cooldown_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 0.0
    """Time after an event in which the next of the same keyword or state is ignored."""
    mute: bool = False
    """True mutes the daemon while the hook runs or waits."""
    mute_after_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 0.0
    """With `mute`: how much longer the daemon stays muted, for example for an echo."""
    awake_wav: str | None = None
    """A sound file played when the hook starts, by pw-play, paplay or aplay."""
    working_directory: str | None = None
    """Working directory; None: that of kws."""
    user: str | None = None
    """User to run as; kws must run as root."""
    environment: dict[str, str] = {}
    """Variables added to those of kws; those of the event override them."""
    keyword_on_stdin: bool = False
    """True writes the keyword to standard input, as wyoming-satellite does, instead of JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        force_setattr(self, "keyword", nfc(self.keyword))
        if self.shell or not isinstance(self.command, str):
            return
        if found := shell_operator(self.command):
            raise HookError(
                f"A hook's `command` is run by a shell only with `shell = true`. Received: "
                f"`{found}` in `{self.command}`. Set `shell = true`, or quote the `{found}`."
            )


class RecordingSettings(_Table, frozen=True, kw_only=True):
    """`[recording]`: audio clips that `kws daemon` keeps around detections."""

    folder: str | None = None
    """Folder of the clips; None: no recording."""
    format: Literal["wav", "flac"] = "wav"
    """File format; 16 bits either way."""
    pre_roll_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 1.0
    """Audio before the keyword."""
    post_roll_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 0.5
    """Audio after the keyword."""
    min_score: Probability | None = None
    """Least score of near misses to record; None: none are recorded."""
    max_clips: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Most clips; the oldest are removed."""
    max_days: Annotated[float, Meta(gt=0.0, le=36_500.0)] = 30.0
    """Greatest age; older clips are removed."""
    max_mb: Annotated[float, Meta(gt=0.0, le=1_000_000.0)] = 500.0
    """Most million bytes; the oldest clips are removed."""


class DaemonSettings(_Table, frozen=True, kw_only=True):
    """`[daemon]`: queues, socket, metrics and logs of `kws daemon`."""

    backlog_s: Annotated[float, Meta(ge=1.0, le=600.0)] = 10.0
    """Audio of each source that may wait for processing; beyond that the oldest is dropped."""
    socket: Annotated[str, Meta(min_length=1)] | None = None
    """Path of the socket for `kws status`; None: kws.sock in the runtime directory."""
    metrics_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    """Port on 127.0.0.1 for Prometheus metrics; None: off."""
    log_format: Literal["text", "json"] = "text"
    """Format of the logs on standard error: plain lines or JSON lines."""


class WyomingSettings(_Table, frozen=True, kw_only=True):
    """`[wyoming]`: a wake word service for clients of the Wyoming protocol."""

    uri: list[str] = []
    """Addresses, `tcp://HOST:PORT` or `unix:///PATH`; empty: no service."""
    models: list[str] = []
    """Bundled names or paths of the models that are served."""
    custom_model_dir: list[str] = []
    """Folders of more models, .tflite and .onnx; new files are found when a client asks."""
    threshold: Probability | None = None
    """Smoothed posterior at which any keyword fires; None: as each model says."""
    trigger_level: Annotated[int, Meta(ge=1, le=100)] = 1
    """Blocks of 80 ms that the posterior must stay at its threshold before a detection."""
    refractory_s: Annotated[float, Meta(ge=0.0, le=60.0)] | None = None
    """Time after a detection without another one; None: as each model says."""
    max_clients: Annotated[int, Meta(ge=1, le=10_000)] = 128
    """Clients at once; beyond that the one that has been silent longest has to leave."""
    idle_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 300.0
    """A client that sends nothing for so long is disconnected."""
    debug_recording_dir: str | None = None
    """Folder for recordings of what clients send; None: nothing is recorded."""
    zeroconf: bool = False
    """True announces the service, as Home Assistant expects it."""
    zeroconf_name: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    """Name in the announcement; None: `kws-` and the hardware address."""


class MqttSettings(_Table, frozen=True, kw_only=True):
    """`[mqtt]`: detections for an MQTT broker, and commands from it."""

    host: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    """Name or address of the broker; None: no MQTT."""
    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    """Port of the broker; None: 1883, or 8883 with TLS."""
    username: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    """User name; None: no login."""
    password_file: str | None = None
    """File with the password; None: the systemd credential `mqtt-password`, if there is one."""
    tls: bool = False
    """True encrypts the connection and checks the broker's certificate."""
    ca_file: str | None = None
    """Certificates of the authorities that are trusted; None: those of the system."""
    certificate_file: str | None = None
    """Certificate of this client, PEM."""
    key_file: str | None = None
    """Private key of this client, PEM; None: it is in `certificate_file`."""
    name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """Name of this device, in topics and in Home Assistant; None: `kws-` and the hardware
    address."""
    hermes: bool = True
    """False leaves out the topics of Rhasspy's Hermes protocol."""
    site_id: Annotated[str, Meta(min_length=1, max_length=64)] = "default"
    """`siteId` of Hermes messages; each of several sources has its own name instead."""
    home_assistant: bool = True
    """False leaves out the discovery by Home Assistant."""
    discovery_prefix: Annotated[str, Meta(min_length=1, max_length=200)] = "homeassistant"
    """First part of the discovery topics."""
    sensor_interval_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 30.0
    """Time between two values of a sensor."""
    max_queued: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Messages that wait while the broker is away; beyond that new ones are dropped."""
    max_age_s: Annotated[float, Meta(gt=0.0, le=31_536_000.0)] | None = None
    """Detections that have waited longer are dropped; None: they are sent however old."""

    def __post_init__(self) -> None:
        super().__post_init__()
        changed = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        if self.host is None and changed:
            raise ConfigError(
                f"`host` of [mqtt] must be set where `{changed[0]}` is. Received: none. Set it to "
                f'the broker, such as `host = "localhost"`, or leave `{changed[0]}` out.'
            )
        if not re.fullmatch(r"[^\s/:@]+|[0-9A-Fa-f:.]+", self.host or "none"):
            raise ConfigError(
                f"`host` of [mqtt] must be a name or an address alone. Received: "
                f"{_without_login(self.host or '')}. Set a port as `port`, and `tls = true` for "
                f"mqtts."
            )
        if re.search(r"[+#\s]|^/|//|/$", self.discovery_prefix):
            raise ConfigError(
                f"`discovery_prefix` of [mqtt] must be a topic without wildcards, blanks and empty "
                f"levels. Received: {self.discovery_prefix!r}. Leave it out, unless Home Assistant "
                f"has another one."
            )
        for key, needed in (
            ("password_file", "username"),
            ("key_file", "certificate_file"),
            ("ca_file", "tls"),
            ("certificate_file", "tls"),
        ):
            if getattr(self, key) is not None and not getattr(self, needed):
                raise ConfigError(
                    f"`{key}` of [mqtt] needs `{needed}`. Received: `{key}` without it. Set "
                    f"`{needed}`, or leave `{key}` out."
                )


class UiSettings(_Table, frozen=True, kw_only=True):
    """`[ui]`: a page for the browser, served by `kws daemon`; `kws ui` serves it in any case."""

    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    """Port of the page; None: `kws daemon` serves none, `kws ui` port 8420."""
    address: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """IP address that the page is served at; one beyond this machine needs `token`."""
    token: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{16,128}\Z")] | None = None
    """The secret in the page's link; None: another random one at each start."""
    hosts: list[str] = []
    """Further names of this machine, by which browsers may call it."""
    folder: Annotated[str, Meta(min_length=1)] | None = None
    """Folder of takes, enrolled models and labels; None: that of kws.toml."""
    runs: list[str] = []
    """Folders whose working folders of `kws new` are shown; empty: `folder`."""
    max_pages: Annotated[int, Meta(ge=1, le=1000)] = 32
    """Pages that show the live scope at once; a further one is told to wait."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_local and self.token is None:
            raise ConfigError(
                f"An `address` of `[ui]` beyond this machine needs a `token`. Received: "
                f"{self.address} without one. Set `token` to 16 letters and digits or more, or "
                f'`address = "127.0.0.1"`.'
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ip_address(self.address).is_loopback
        except ValueError:
            raise ConfigError(
                f"The `address` of `[ui]` must be an IP address of this machine. Received: "
                f'{self.address!r}. Set `address = "127.0.0.1"`, for example.'
            ) from None


class Config(_Table, frozen=True, kw_only=True):
    """All tables of kws.toml."""

    model: ModelSettings = ModelSettings()
    models: list[ListenerSettings] = []
    source: SourceSettings = SourceSettings()
    sources: list[SourceSettings] = []
    gate: GateSettings = GateSettings()
    decision: DecisionSettings = msgspec.field(default_factory=DecisionSettings)
    hooks: list[HookSettings] = []
    recording: RecordingSettings = RecordingSettings()
    daemon: DaemonSettings = DaemonSettings()
    wyoming: WyomingSettings = msgspec.field(default_factory=WyomingSettings)
    mqtt: MqttSettings = MqttSettings()
    ui: UiSettings = msgspec.field(default_factory=UiSettings)

    @property
    def every_source(self) -> list[SourceSettings]:
        """`[[sources]]`, or else the one `[source]`; commands without a name are numbered."""
        sources, n = [], 0
        for one in self.sources or [self.source]:
            n += (is_unnamed := bool(one.command and not one.name))
            sources.append(replace(one, name=f"command {n}") if is_unnamed else one)
        return sources

    @property
    def every_model(self) -> list[ListenerSettings]:
        """`[[models]]`, or else the one `[model]`, each with its decision settings."""
        models = self.models or [
            ListenerSettings(name=self.model.name, n_threads=self.model.n_threads)
        ]
        return [replace(one, decision=one.decision or self.decision) for one in models]


def load_config(path: Path) -> Config:
    """Read kws.toml and its drop-ins; relative paths of models start at its folder.

    Raises
    ------
    ConfigError
        If a file is missing, not UTF-8 TOML, or breaks a rule; the message names file and key. As
        root, also if every user may change the file.
    HookError
        If a `[[hooks]]` entry breaks a rule.
    """
    files = read_config_files(path)
    for file in files[1:]:  # so that a message names the file that breaks a rule
        _converted(file.tables, name=str(file.path))
    config = _checked(merged(files), name=str(path))
    return replace(
        config,
        model=_from_folder(config.model, path.parent),
        models=[_from_folder(model, path.parent) for model in config.models],
    )


def _from_folder(model: _Model, folder: Path) -> _Model:
    return replace(model, name=relative_to_folder(model.name, folder))


def parse_config(text: str, *, name: str = "kws.toml") -> Config:
    """Read settings out of TOML text; errors as in `load_config`."""
    return _checked(parse_toml(text, name=name), name=name)


def _checked(tables: dict[str, Any], *, name: str) -> Config:
    config = _converted(tables, name=name)
    _check_lists(tables, config, name=name)
    _warn_of_commands(config, name=name)
    return config


def _converted(tables: dict[str, Any], *, name: str) -> Config:
    try:
        return msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise _explain(error, tables, name=name) from None


def _warn_of_commands(config: Config, *, name: str) -> None:
    """Log what only a shell would understand, where none runs the command."""
    hooks = [(one.command, "set `shell = true`") for one in config.hooks if not one.shell]
    sources = [(one.command, 'run it by `["sh", "-c", "…"]`') for one in config.every_source]
    for command, remedy in (*hooks, *sources):
        if command and (words := doubtful_words(command)):
            program = (command.split() if isinstance(command, str) else command)[0]
            _log.warning(
                "%s: no shell runs the command `%s …`, which gets %s as it stands. "
                "For a shell, %s.",
                name,
                program,
                " ".join(f"`{word}`" for word in words),
                remedy,
            )


def _check_lists(tables: dict[str, Any], config: Config, *, name: str) -> None:
    """Refuse `[source]` beside `[[sources]]`, and two sources of one name."""
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
    error: msgspec.ValidationError, tables: dict[str, Any], *, name: str
) -> ConfigError | HookError:
    """Add to msgspec's message the table, the value received and the nearest known key."""
    problem, _, path = str(error).partition(" - at `$")
    keys = re.findall(r"\w+|\.\.\.", path)
    kind = HookError if keys[:1] == ["hooks"] else ConfigError
    table, key = _table_at(keys), path.strip("`.")
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", problem, re.DOTALL):
        known = table.__struct_fields__
        return kind(
            f"Every key in {name} must be one that kws knows. Received: `{unknown.group(1)}` in "
            f"{f'`{key}`' if key else 'the top level'}.{did_you_mean(unknown.group(1), known)} "
            f"Known there: {', '.join(known)}."
        )
    if missing := re.fullmatch(r"Object missing required field `(.+)`", problem):
        return kind(f"`{key}.{missing.group(1)}` must be set in {name}. Received: none. Add it.")
    remedy = "Change it."
    if keys[-1] in {"hooks", "models", "sources"}:
        remedy = f"Write [[{keys[-1]}]], in two brackets."
    elif problem.startswith("Invalid enum value"):
        remedy = f"Use one of {', '.join(map(str, _choices(table, keys)))}."
    value = _value_at(tables, keys)
    received = (
        value if isinstance(value, float) else msgspec.json.encode(value, enc_hook=str).decode()
    )
    return kind(f"`{key}` in {name}: {_lowered(problem)}. Received: {received}. {remedy}")


def _lowered(problem: str) -> str:
    """Put msgspec's sentence behind a colon, in the words of TOML."""
    return problem[0].lower() + problem[1:].replace("`object`", "`table`")


def _value_at(value: Any, keys: list[str]) -> Any:
    """Return the value at a path; where msgspec writes `...` for a key, the whole dict."""
    for key in keys:
        if key == "...":
            return value
        value = value[int(key) if key.isdigit() else key]
    return value


def _table_at(keys: list[str]) -> type[_Table]:
    """Return the class of the innermost table on a path such as models, 0, decision."""
    table: type[_Table] = Config
    for key in keys:
        if key in table.__struct_fields__:
            table = next(iter(_parts(_type_of(table, key), _Table)), table)
    return table


def _choices(table: type[_Table], keys: list[str]) -> list[Any]:
    """List the values of the key at the end of a path, which takes only some."""
    key = next(key for key in reversed(keys) if key in table.__struct_fields__)
    return _parts(_type_of(table, key), str)


def _type_of(table: type[_Table], key: str) -> Any:
    return next(field.type for field in fields(table) if field.name == key)


def _parts(hint: Any, kind: type) -> list[Any]:
    """List the classes below `kind`, or the values of that type, inside a type."""
    if isinstance(hint, type) and issubclass(hint, kind) and hint is not kind:
        return [hint]
    return (
        [hint]
        if isinstance(hint, kind)
        else [x for one in get_args(hint) for x in _parts(one, kind)]
    )
