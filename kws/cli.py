"""The `kws` command: a thin function per command; heavy modules are imported where they are used.

The workbench adds its own commands through the entry points of the group `kws.commands`.
"""

import contextlib
import functools
import io
import logging
import math
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from kws.command_group import (
    LISTEN,
    MODEL,
    OWN_WORD,
    Group,
    NameOrFile,
    RootGroup,
    configure_logs,
    has_log_format,
)
from kws.errors import ConfigError, KwsError

if TYPE_CHECKING:
    from kws.arrays import Samples
    from kws.logs import LogFormat

__all__ = ["cli", "main"]

_INTERRUPTED = 130
_BROKEN_PIPE = 141
_TERMINATED = 143

_PATH = click.Path(path_type=Path)
_FACTS: dict[str, Any] = {
    "width": 80,
    "subsequent_indent": " " * 14,
    "break_long_words": False,
    "break_on_hyphens": False,
}


def _finite(_ctx: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse nan and infinity, which a range accepts."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


@click.group(
    cls=RootGroup,
    epilog="""Tab completion, for ~/.bashrc: eval "$(_KWS_COMPLETE=bash_source kws)" """,
)
@click.version_option(package_name="kws")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Detect spoken keywords and run commands when they occur."""
    configure_logs(ctx)


def _set_log_format(
    ctx: click.Context, _parameter: click.Parameter, value: "LogFormat | None"
) -> None:
    """Change the format of the logs before any other option is read."""
    if value:
        configure_logs(ctx, log_format=value)


_LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    callback=_set_log_format,
    is_eager=True,
    expose_value=False,
    help="Format of the logs on standard error; default: text.",
)
_SOCKET = click.option(
    "--socket",
    type=_PATH,
    help="The daemon's socket; default: kws.sock in $XDG_RUNTIME_DIR or /run/kws.",
)
_DAEMON_CONFIG = click.option(
    "--config", type=_PATH, help="The daemon's kws.toml, to find its socket."
)
_DEVICE = click.option(
    "--device", metavar="NAME", help="A microphone, as `kws devices` lists them."
)
_INPUT = NameOrFile(lambda: ())


@cli.command(section=LISTEN)
def demo() -> None:
    """Play bundled recordings to the models; explain hits and misses."""
    from kws.commands.demo import run

    run(echo=click.echo)


@cli.command(section=LISTEN)
@click.argument("file", required=False, type=_INPUT, metavar="[FILE]")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=MODEL,
    metavar="NAME|FILE",
    help="A bundled model or a file; repeat it for several models.",
)
@click.option(
    "--input",
    "option",
    type=_INPUT,
    metavar="mic|FILE|-|URL",
    help="Audio source, as FILE; default: mic.",
)
@_DEVICE
@click.option("--config", type=_PATH, help="A kws.toml; options override it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines only.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    callback=_finite,
    metavar="P",
    help="Posterior at which every keyword is detected.",
)
@click.option(
    "--false-alarms-per-hour",
    type=click.FloatRange(0, min_open=True),
    callback=_finite,
    metavar="R",
    help="Take the thresholds for this rate from the model's calibration table.",
)
@click.option("--no-vad", is_flag=True, help="Run the model on silence too.")
@click.option(
    "--chunk-ms", type=click.IntRange(10, 1000), help="Audio processed at once; default: 80."
)
@_LOG_FORMAT
def listen(
    file: str | None, *, option: str | None, config: Path | None, as_json: bool, **options: Any
) -> None:
    """Print a line per detected keyword and run its hooks.

    FILE is a recording, `mic`, `udp://HOST:PORT`, `tcp://HOST:PORT`, or `-` for standard input: raw
    16 kHz mono s16le, or a WAV.
    """
    from kws.commands.listen import deliver_to, listen_to, summary
    from kws.commands.listen_settings import listen_settings
    from kws.sinks.hooks import Hooks
    from kws.sinks.jsonl import JsonLines
    from kws.sinks.text import Text
    from kws.sources import open_source
    from kws.spotter import Spotter

    if file and option and file != option:
        raise click.UsageError(
            f"Give the audio source once. Received: {file}, and --input {option}."
        )
    if len(set(options["models"])) < len(options["models"]):
        raise click.UsageError("Give each --model once.")
    settings = listen_settings(config, source=file or option, **options)
    spotter = Spotter(settings.every_model, gate=settings.gate)
    keywords = spotter.keywords
    hooks = Hooks(settings.hooks, keywords=keywords)
    printer = JsonLines(sys.stdout) if as_json else Text(sys.stdout, keywords=keywords)
    with open_source(settings.source) as source, contextlib.ExitStack() as at_exit:
        at_exit.callback(hooks.close, kill=True)
        if source.live and not as_json:
            click.echo(f"Listening to {source.name} for {', '.join(keywords)}.", err=True)
        end, failure = listen_to(
            source,
            spotter,
            deliver_to(hooks.send, printer.send),
            metered=not as_json and sys.stdout.isatty(),
            silent_s=settings.source.silent_s,
        )
        if not (source.live and failure):  # a live source ends only with its command, or by error
            printer.send(end)
            if not as_json:
                click.echo(summary(end))
        hooks.close()
    if failure:
        raise failure


@cli.command(section=LISTEN)
def devices() -> None:
    """List the microphones."""
    from kws.sources import list_devices

    found = list_devices()
    if not found:
        click.echo("No microphone was found; `kws doctor` says more.", err=True)
    for device in found:
        mark = "*" if device.default else " "
        click.echo(f"{mark} {device.id:<24} {device.name} ({device.source})")


@cli.command(section=LISTEN)
def models() -> None:
    """List the bundled models."""
    from kws.manifest import read_manifest
    from kws.model import bundled_models

    for name, path in bundled_models().items():
        manifest, content = read_manifest(path)
        click.echo(f"{name:<16} {len(content) / 1000:6.0f} kB  {', '.join(manifest.keywords)}")


@cli.command(section=LISTEN)
@click.argument("model", type=MODEL)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(model: str, as_json: bool) -> None:
    """Show the keywords, features, thresholds and data of a model.

    MODEL is a bundled name or a file.
    """
    from kws.commands.info import facts, manifest_json
    from kws.model import model_path
    from kws.model_file import read_model

    manifest, content = read_model(model_path(model))
    if as_json:
        click.echo(manifest_json(manifest, n_bytes=len(content)))
        return
    for title, text in facts(manifest, n_bytes=len(content)):
        click.echo(textwrap.fill(text, initial_indent=f"{title:<13} ", **_FACTS) or title)


@cli.command(section=LISTEN)
@click.argument("model", type=MODEL)
@click.argument("file", required=False, type=_INPUT, metavar="[FILE]")
@click.option(
    "--minutes",
    type=click.FloatRange(0.2, 600),
    default=5.0,
    show_default=True,
    help="Length of the measurement.",
)
@_DEVICE
@click.option("--out", type=_PATH, help="Write the lines to this new file too.")
def calibrate(
    model: str, file: str | None, *, minutes: float, device: str | None, out: Path | None
) -> None:
    """Derive thresholds and gain from the sound of your room.

    Records the microphone, or reads FILE, while nobody says a keyword of MODEL; other talk, music
    and machines should go on as usual. Prints lines for kws.toml.
    """
    from kws.commands.calibrate_room import fragment, measure_room
    from kws.config import SourceSettings
    from kws.sources import open_source
    from kws.spotter import open_for_sources

    if out and out.exists():
        raise ConfigError(f"A new file must be written. Received: {out}, which exists. Remove it.")
    opened = open_for_sources(model)
    with open_source(SourceSettings(input=file or "mic", device=device)) as source:
        click.echo(
            f"Measuring {source.name}; do not say {' or '.join(opened.manifest.keywords)}.",
            err=True,
        )
        measured_s = min(60 * minutes, source.duration_s or math.inf)
        with _progress(source.name, measured_s) as show:
            room = measure_room(source, opened, seconds=60 * minutes, show=show)
    text = fragment(room, model=model)
    if out:
        out.write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


@cli.group(cls=Group, section=LISTEN)
def config() -> None:
    """Check a kws.toml, show what is in force, or print its schema."""


@config.command("check")
@click.argument("file", type=_PATH, default=Path("kws.toml"))
def check_config(file: Path) -> None:
    """Check FILE, its models, hooks and commands; default: kws.toml.

    The exit code is 0, or that of the error: 2 for a setting, 3 for a source, 4 for a
    model, 5 for a hook.
    """
    from kws.commands.config_report import check

    click.echo(f"{file} is valid: {check(file)}.")


@config.command("show")
@click.argument("file", type=_PATH, default=Path("kws.toml"))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per key.")
def show_config(file: Path, as_json: bool) -> None:
    """Print every setting in force and where it is set.

    Drop-ins, FILE.d/*.toml, are read after FILE, in the order of their names.
    """
    from kws.commands.config_report import render, render_json, settings_of

    click.echo((render_json if as_json else render)(settings_of(file)))


@config.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of kws.toml, for editors."""
    import json

    from kws.commands.config_report import json_schema

    click.echo(json.dumps(json_schema(), indent=1, ensure_ascii=False))


@cli.command(section=LISTEN)
@click.option(
    "--config",
    type=_PATH,
    default=Path("kws.toml"),
    help="A kws.toml to check too; default: ./kws.toml, if it exists.",
)
@click.pass_context
def doctor(ctx: click.Context, config: Path) -> None:
    """Check packages, model and microphones; print the fixes.

    Each microphone is recorded for a second; nothing is kept.
    """
    from kws.commands.doctor import report, run_checks

    checks = list(run_checks(config))
    click.echo(report(checks))
    ctx.exit(0 if all(check.ok or not check.needed for check in checks) else 1)


@cli.command(section=LISTEN)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=["commands"],
    show_default=True,
    type=MODEL,
    metavar="NAME|FILE",
    help="A bundled model or a file; repeat it to measure several.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
def bench(models: tuple[str, ...], as_json: bool) -> None:
    """Measure CPU by stage, memory and start-up time on this machine."""
    import msgspec

    from kws.commands.bench import measure, table
    from kws.model import model_path
    from kws.spotter import open_for_sources

    for model in models:
        measured = measure(open_for_sources(model), path=model_path(model))
        click.echo(msgspec.json.encode(measured).decode() if as_json else table(measured))


@cli.command(section=LISTEN)
@click.option(
    "--config",
    type=_PATH,
    required=True,
    help="The kws.toml; SIGHUP reloads it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
@_LOG_FORMAT
@click.pass_context
def daemon(ctx: click.Context, config: Path, as_json: bool) -> None:
    """Run as a service, with several sources and several models.

    Failed sources and models are restarted. Logs go to standard error. SIGTERM stops the service,
    SIGHUP reloads its configuration.
    """
    import asyncio

    _require_linux("`kws daemon`")
    from kws.daemon.init import run_below_init

    run_below_init()
    # The configuration is read later; a handler of Python, as children would inherit SIG_IGN.
    signal.signal(signal.SIGHUP, lambda *_: None)
    from kws.config import load_config
    from kws.daemon.service import Daemon
    from kws.sinks.jsonl import JsonLines

    change_log = None
    if not has_log_format(ctx):
        change_log = configure_logs(ctx, log_format=load_config(config).daemon.log_format)
    logging.getLogger("kws").setLevel(logging.INFO)
    # A separate stream: when it blocks, the process can still exit.
    printer = JsonLines(os.fdopen(os.dup(1), "w")) if as_json else None
    _leave(ctx, asyncio.run(Daemon(config, printer=printer, change_log=change_log).run()))


@cli.command(section=LISTEN)
@click.option(
    "--config",
    type=_PATH,
    default=Path("kws.toml"),
    show_default=True,
    help="The kws.toml; SIGHUP reloads it, and an empty one has the defaults.",
)
@click.option(
    "--port", type=click.IntRange(1, 65_535), help="Port of the page; default: 8420, or [ui] port."
)
@_LOG_FORMAT
@click.pass_context
def ui(ctx: click.Context, config: Path, port: int | None) -> None:
    """Look, listen and label in a browser; prints the page's link.

    Runs what `kws daemon` runs, and goes on after the end of files. Needs the extra kws[ui].
    """
    import asyncio

    from kws.commands.ui_settings import check_config, with_page
    from kws.daemon.capture_process import REAL_TIME_CAPTURE
    from kws.daemon.service import Daemon

    check_config(config)
    daemon = Daemon(
        config,
        capture_command=REAL_TIME_CAPTURE,
        override=functools.partial(with_page, port=port),
        announce_page=lambda link: click.echo(f"Open {link}"),
    )
    _leave(ctx, asyncio.run(daemon.run()))


@cli.command(section=LISTEN)
@_SOCKET
@_DAEMON_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(socket: Path | None, config: Path | None, as_json: bool) -> None:
    """Show the daemon's sources, detections and last errors."""
    import msgspec

    from kws.daemon.status_client import ask
    from kws.daemon.status_view import status_tables

    snapshot = ask(_daemon_socket(socket, config))
    if as_json:
        click.echo(msgspec.json.encode(snapshot).decode())
        return
    from rich.console import Console

    console = Console()
    console.print(status_tables(snapshot, ascii_only=console.options.ascii_only))


@cli.command(section=LISTEN)
@_SOCKET
@_DAEMON_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines only.")
def tail(socket: Path | None, config: Path | None, as_json: bool) -> None:
    """Print the daemon's events as they happen, until it ends."""
    from kws.daemon.status_client import follow
    from kws.events import to_json
    from kws.sinks.text import describe

    for event in follow(_daemon_socket(socket, config)):
        click.echo(to_json(event) if as_json else describe(event))
    if not as_json:
        click.echo("The daemon has ended.", err=True)


@cli.command(section=OWN_WORD)
@click.argument("word")
@click.option(
    "--out",
    required=True,
    type=_PATH,
    help="Folder; recordings go to OUT/WORD/*.wav.",
)
@click.option(
    "--takes",
    default=5,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of recordings wanted; existing ones count.",
)
@click.option(
    "--speaker",
    default="me",
    show_default=True,
    metavar="NAME",
    help="Speaker, part of the file names.",
)
@click.option(
    "--input",
    "source",
    type=_INPUT,
    metavar="mic|FILE|-",
    default="mic",
    show_default=True,
    help="Audio source.",
)
@_DEVICE
def record(
    word: str, *, out: Path, takes: int, speaker: str, source: str, device: str | None
) -> None:
    """Record takes of WORD from the microphone and check each one."""
    from kws.commands.record import level_meter
    from kws.commands.record import record as record_takes
    from kws.config import SourceSettings
    from kws.live_lines import is_live_terminal, live_lines
    from kws.sources import open_source

    with (
        open_source(SourceSettings(input=source, device=device)) as audio,
        live_lines() as screen,
    ):
        is_shown = is_live_terminal()

        def show_level(samples: "Samples", speaking: bool) -> None:
            if is_shown and screen.is_due:
                width, ascii_only = screen.columns, screen.ascii_only
                screen.draw(
                    [level_meter(samples, speaking=speaking, width=width, ascii_only=ascii_only)]
                )

        def say(line: str) -> None:
            screen.clear()
            click.echo(line)

        record_takes(
            audio, word, out, n_takes=takes, speaker=speaker, say=say, show_level=show_level
        )


@cli.command(section=OWN_WORD)
@click.argument("word")
@click.argument("recordings", nargs=-1, required=True, type=_PATH)
@click.option("--out", required=True, type=_PATH, help="The .tflite to write.")
@click.option("--name", help="Name of the model in events; default: that of --out.")
@click.option(
    "--only-me", is_flag=True, help="Detect it in this voice only, as far as can be told."
)
def enroll(
    word: str, recordings: tuple[Path, ...], *, out: Path, name: str | None, only_me: bool
) -> None:
    """Make a model of WORD from 3 recordings or more of your voice.

    RECORDINGS are audio files, or folders of them, such as `kws record` makes.
    """
    from kws.commands.enroll import enroll as enroll_word
    from kws.commands.enrolment_takes import recordings_in
    from kws.commands.speaker_data import SPEAKER_THRESHOLD

    enrolment = enroll_word(word, recordings_in(recordings), out, name=name, only_me=only_me)
    for path, reason in enrolment.refused.items():
        click.echo(f"Not used, {reason}: {path}", err=True)
    for path, score in enrolment.scores.items():
        weak = "" if score >= 0.5 else "  not detected by the other recordings: record it again"
        if path in enrolment.left_out:
            weak += "; left out"
        click.echo(f"{path}  {score:.2f}{weak}")
    for path, score in enrolment.speaker_scores.items():
        if score < SPEAKER_THRESHOLD:
            click.echo(f"{path}  voice unlike the others', {score:.2f} of {SPEAKER_THRESHOLD:g}")
    click.echo(f"{out}: {out.stat().st_size} bytes. Try it: kws listen --model {out}")


@cli.command(section=LISTEN)
@click.option(
    "--uri",
    multiple=True,
    metavar="URI",
    help="tcp://HOST:PORT or unix:///PATH; repeat it for several. Default: "
    "tcp://127.0.0.1:10400, this machine only; tcp://0.0.0.0:10400 serves the network.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=MODEL,
    metavar="NAME|FILE",
    help="A bundled model or a file; repeat it for several. Default: computer.",
)
@click.option(
    "--preload-model",
    multiple=True,
    metavar="NAME|FILE",
    help="As --model; all models are preloaded.",
)
@click.option(
    "--custom-model-dir",
    multiple=True,
    metavar="DIR",
    help="Folder of more models; new ones are found while it runs.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    callback=_finite,
    metavar="P",
    help="Threshold of all keywords, 0..1; default: as each model says.",
)
@click.option(
    "--trigger-level",
    type=click.IntRange(1, 100),
    metavar="N",
    help="Blocks of 80 ms above the threshold before a detection; default: 1.",
)
@click.option(
    "--refractory-seconds",
    "refractory_s",
    type=click.FloatRange(0, 60),
    callback=_finite,
    metavar="S",
    help="Time after a detection without another one; default: as each model says.",
)
@click.option(
    "--debug-recording-dir",
    type=click.Path(),
    help="Folder for the audio of clients: up to 1000 clips of a minute, 1 GB, 30 days.",
)
@click.option(
    "--max-clients",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Clients at once; default: 128.",
)
@click.option(
    "--idle-seconds",
    "idle_s",
    type=click.FloatRange(1, 86_400),
    callback=_finite,
    metavar="S",
    help="Disconnect a client that sends nothing for so long; default: 300.",
)
@click.option(
    "--zeroconf",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Announce the service to Home Assistant by zeroconf.",
)
@_LOG_FORMAT
@click.pass_context
def wyoming(ctx: click.Context, /, **options: Any) -> None:
    """Serve Home Assistant and its satellites by the Wyoming protocol.

    Needs the extra kws[wyoming].
    """
    import asyncio

    from kws.platforms import require_posix

    remedy = "Run it on Linux, on a Raspberry Pi or in a container."
    require_posix("`kws wyoming`", error=KwsError, remedy=remedy)
    try:
        from kws.wyoming.service import serve, settings_of
    except ImportError as error:
        raise ConfigError(
            f"`kws wyoming` needs the package wyoming. Received: {error}. Run "
            f"`pip install 'kws[wyoming]'`."
        ) from error

    settings = settings_of(**options)
    ctx.exit(asyncio.run(serve(settings, echo=functools.partial(click.echo, err=True))))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the `kws` command and exit; the entry point.

    Parameters
    ----------
    arguments : sequence of str or None
        None takes those of the process.
    """
    _fill_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names and descriptions may hold any character
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    sys.exit(_flushed(_exit_code(arguments)))


def _exit_code(arguments: Sequence[str] | None) -> int:
    """Run the command and return its exit code; print the error, if there is one."""
    try:
        code = cli.main(arguments, prog_name="kws", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KwsError as error:
        from kws.own_programs import with_own_pip

        click.echo(f"Error: {with_own_pip(str(error))}", err=True)
        return error.exit_code
    except OSError as error:
        click.echo(
            f"Error: Files and standard output must be usable. Received: {error}. "
            f"Check the disk and the permissions.",
            err=True,
        )
        return KwsError.exit_code
    return int(code or 0)


def _fill_standard_streams() -> None:
    """Open the standard streams that are closed, or the next file would take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if number:
                setattr(sys, name, os.fdopen(opened, "w"))


def _flushed(code: int) -> int:
    """Flush standard output; if that fails, keep Python from trying again at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or (_BROKEN_PIPE if isinstance(error, BrokenPipeError) else KwsError.exit_code)
    return code


@contextlib.contextmanager
def _progress(name: str, total_s: float) -> Iterator[Callable[[float], None]]:
    """Show progress where standard error is a terminal; yield what takes the seconds done."""
    from kws.live_lines import is_live_terminal

    if not is_live_terminal():
        yield lambda done_s: None
        return
    from kws.terminal import live_progress

    with live_progress(name, total_s) as (show, _):
        yield show


def _leave(ctx: click.Context, code: int) -> NoReturn:
    """Exit; where a thread still works, as a sink hangs, without waiting for its locks."""
    if any(thread.name.startswith("kws-") for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(code)
    ctx.exit(code)


def _require_linux(what: str) -> None:
    from kws.platforms import require_linux

    remedy = "Run `kws listen` here, and the daemon on Linux, on a Raspberry Pi or in a container."
    require_linux(what, error=KwsError, remedy=remedy)


def _daemon_socket(socket: Path | None, config: Path | None) -> Path:
    """Return the socket that the options name, or where one is usually found."""
    _require_linux("The daemon's socket")
    from kws.config import load_config
    from kws.daemon.status_client import find_socket
    from kws.paths import expanded

    if socket and config:
        raise click.UsageError("Give --socket or --config, not both.")
    if config and (configured := load_config(config).daemon.socket):
        return expanded(configured, what="`[daemon] socket`")
    return socket or find_socket()
