"""The `kws` command: thin, one function a command, everything heavy imported where it is used.

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
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from kws.errors import ConfigError, KwsError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from kws.config import Config

__all__ = ["cli", "main"]

_INTERRUPTED = 130
_BROKEN_PIPE = 141
_TERMINATED = 143

_log = logging.getLogger("kws")


class _Commands(click.Group):
    """The commands below, and those of the workbench, which are loaded when they are wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_workbench())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is not None or cmd_name not in _workbench():
            return command
        try:
            loaded: click.Command = _workbench()[cmd_name].load()
        except ImportError as error:
            return _unavailable(cmd_name, error)
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            hint = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"No such command `{name}`.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        """Run a command; what it returns is nobody's exit code."""
        try:
            super().invoke(ctx)
        except ImportError as error:
            raise _missing(str(ctx.invoked_subcommand), error) from error
        except BrokenPipeError:
            raise click.exceptions.Exit(_BROKEN_PIPE) from None


def _finite(_ctx: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse what every range lets pass."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kws")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to standard error.")
def cli(verbose: bool) -> None:
    """Listen for keywords, and run commands when they are heard."""
    from kws.daemon.logs import configure

    configure(verbose=verbose)


def _log_format(
    ctx: click.Context, _parameter: click.Parameter, value: Literal["text", "json"] | None
) -> None:
    """Write the logs otherwise, from the first line on."""
    from kws.daemon.logs import configure

    if value:
        ctx.meta["log_format"] = value
        configure(value, verbose=ctx.find_root().params["verbose"])


_LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    callback=_log_format,
    is_eager=True,
    expose_value=False,
    help="What logs on standard error are; default text.",
)
_SOCKET = click.option(
    "--socket", type=click.Path(path_type=Path), help="The daemon's, if kws.toml sets another."
)


@cli.command()
@click.option("--model", metavar="NAME|FILE", help="A bundled model or a .tflite.")
@click.option("--input", "source", metavar="mic|FILE|-|URL", help="Where audio comes from.")
@click.option("--device", metavar="NAME", help="A microphone, as `kws devices` lists them.")
@click.option("--config", type=click.Path(path_type=Path), help="A kws.toml; options override it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines only.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    callback=_finite,
    metavar="P",
    help="How sure, 0..1, for all keywords.",
)
@click.option(
    "--false-alarms-per-hour",
    type=click.FloatRange(0, min_open=True),
    callback=_finite,
    metavar="R",
    help="A budget; the model's calibration table gives the thresholds.",
)
@click.option("--no-vad", is_flag=True, help="Run the model on silence too.")
@click.option("--chunk-ms", type=click.IntRange(10, 1000), help="Audio taken at once; default 80.")
@_LOG_FORMAT
def listen(config: Path | None, as_json: bool, **options: Any) -> None:
    """Print a line for every keyword heard, and run its hooks.

    Raw 16 kHz mono s16le, or a WAV, is read from standard input with `--input -`.
    """
    from kws.commands.listen import deliver_to, listen_to, summary
    from kws.sinks.hooks import Hooks
    from kws.sinks.jsonl import JsonLines
    from kws.sinks.text import Text
    from kws.sources import open_source
    from kws.spotter import Spotter

    settings = _settings(config, **options)
    spotter = Spotter(settings.model, gate=settings.gate, decision=settings.decision)
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
        )
        if not (source.live and failure):  # what is live ends only if its command does, or by error
            printer.send(end)
            if not as_json:
                click.echo(summary(end))
        hooks.close()
    if failure:
        raise failure


@cli.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    required=True,
    help="A kws.toml; SIGHUP rereads it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines.")
@_LOG_FORMAT
@click.pass_context
def daemon(ctx: click.Context, config: Path, as_json: bool) -> None:
    """Listen for months: to several microphones, with several models, whatever fails.

    Logs go to standard error. SIGTERM ends it, SIGHUP makes it read its configuration again.
    """
    import asyncio

    from kws.config import load_config
    from kws.daemon.logs import configure
    from kws.daemon.service import Daemon
    from kws.sinks.jsonl import JsonLines

    change_log = None
    if "log_format" not in ctx.meta:
        change_log = configure(load_config(config).daemon.log_format)
    logging.getLogger("kws").setLevel(logging.INFO)
    # A stream of its own: one that is stuck must not keep the process from ending.
    printer = JsonLines(os.fdopen(os.dup(1), "w")) if as_json else None
    code = asyncio.run(Daemon(config, printer=printer, change_log=change_log).run())
    if any(thread.name.startswith("kws-") for thread in threading.enumerate()):
        os._exit(code)  # a sink hangs, and Python would wait for the locks that it holds
    ctx.exit(code)


@cli.command()
@_SOCKET
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(socket: Path | None, as_json: bool) -> None:
    """Say what the daemon hears and does, and what went wrong."""
    import msgspec

    from kws.daemon.status_client import ask, find_socket
    from kws.daemon.status_view import status_tables

    snapshot = ask(socket or find_socket())
    if as_json:
        click.echo(msgspec.json.encode(snapshot).decode())
        return
    from rich.console import Console

    console = Console()
    console.print(status_tables(snapshot, ascii_only=console.options.ascii_only))


@cli.command()
@_SOCKET
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines only.")
def tail(socket: Path | None, as_json: bool) -> None:
    """Print the daemon's events as they come, until it ends."""
    from kws.daemon.status_client import find_socket, follow
    from kws.events import to_json
    from kws.sinks.text import describe

    for event in follow(socket or find_socket()):
        click.echo(to_json(event) if as_json else describe(event))
    if not as_json:
        click.echo("The daemon has ended.", err=True)


@cli.command()
def devices() -> None:
    """List the microphones."""
    from kws.sources import list_devices

    found = list_devices()
    if not found:
        click.echo("No microphone was found; `kws doctor` says more.", err=True)
    for device in found:
        mark = "*" if device.default else " "
        click.echo(f"{mark} {device.id:<24} {device.name} ({device.source})")


@cli.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("kws.toml"),
    help="A kws.toml to check too; default kws.toml, if there is one.",
)
@click.pass_context
def doctor(ctx: click.Context, config: Path) -> None:
    """Check that everything needed is there, and say how to get what is not.

    Microphones are heard for a second, of which nothing is kept.
    """
    from kws.commands.doctor import examine, report

    checks = list(examine(config))
    click.echo(report(checks))
    ctx.exit(0 if all(check.ok or not check.needed for check in checks) else 1)


@cli.command()
def models() -> None:
    """List the bundled models."""
    from kws.manifest import read_manifest
    from kws.model import bundled_models

    for name, path in bundled_models().items():
        manifest, content = read_manifest(path)
        click.echo(f"{name:<16} {len(content) / 1000:6.0f} kB  {', '.join(manifest.keywords)}")


@cli.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(model: str, as_json: bool) -> None:
    """Say everything that MODEL, a bundled name or a .tflite, says about itself."""
    import msgspec

    from kws.commands.info import facts
    from kws.manifest import read_manifest
    from kws.model import model_path

    manifest, content = read_manifest(model_path(model))
    if as_json:
        everything = {**msgspec.to_builtins(manifest), "model_bytes": len(content)}
        click.echo(msgspec.json.encode(everything).decode())
        return
    for title, text in facts(manifest, n_bytes=len(content)):
        click.echo(f"{title:<13} {text}")


@cli.command()
@click.option(
    "--model",
    default="commands",
    show_default=True,
    metavar="NAME|FILE",
    help="A bundled model or a .tflite.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(model: str, as_json: bool) -> None:
    """Measure CPU by stage, memory and start-up time on this machine."""
    import msgspec

    from kws.commands.bench import measure, table
    from kws.model import model_path
    from kws.spotter import open_for_sources

    measured = measure(open_for_sources(model), path=model_path(model))
    click.echo(msgspec.json.encode(measured).decode() if as_json else table(measured))


@cli.command()
def demo() -> None:
    """Hear the bundled recording with the bundled model, and count hits and misses."""
    from kws.commands.demo import load_demo, play
    from kws.config import SourceSettings
    from kws.sources import open_source
    from kws.spotter import Spotter

    labels, recording = load_demo()
    spotter = Spotter()
    with open_source(SourceSettings(input=str(recording))) as source:
        play(source, spotter, labels, echo=click.echo)


@cli.command()
@click.argument("word")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Gets WORD/*.wav.")
@click.option(
    "--takes",
    default=5,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="How many to have in the end, those from before included.",
)
@click.option("--speaker", default="me", show_default=True, metavar="NAME", help="Who speaks.")
@click.option(
    "--input",
    "source",
    metavar="mic|FILE|-",
    default="mic",
    show_default=True,
    help="Where audio comes from.",
)
@click.option("--device", metavar="NAME", help="A microphone, as `kws devices` lists them.")
def record(
    word: str, *, out: Path, takes: int, speaker: str, source: str, device: str | None
) -> None:
    """Record WORD several times, each take checked at once; what is there already counts."""
    from kws.commands.record import record as take
    from kws.config import SourceSettings
    from kws.sources import open_source

    def show(line: str) -> None:
        if sys.stderr and sys.stderr.isatty():
            click.echo(f"\r{line}\r", nl=False, err=True)

    def say(line: str) -> None:
        show(" " * 60)
        click.echo(line)

    with open_source(SourceSettings(input=source, device=device)) as audio:
        take(audio, word, out, n_takes=takes, speaker=speaker, say=say, show=show)


@cli.command()
@click.argument("word")
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .tflite to write.")
@click.option("--backbone", type=click.Path(path_type=Path), help="Default: the bundled one.")
def enroll(word: str, recordings: tuple[Path, ...], *, out: Path, backbone: Path | None) -> None:
    """Make a model of your WORD out of 3 to 10 RECORDINGS of your own voice, or their folder."""
    from kws.commands.enroll import enroll as make
    from kws.commands.enroll import recordings_in

    done = make(word, recordings_in(recordings), out, backbone=backbone)
    for path, reason in done.refused.items():
        click.echo(f"Not used, {reason}: {path}", err=True)
    for path, score in done.scores.items():
        weak = "" if score >= 0.5 else "  would be missed, going by the others: record it again"
        click.echo(f"{path}  {score:.2f}{weak}")
    click.echo(f"{out}: {out.stat().st_size} bytes. Try it: kws listen --model {out}")


@cli.command()
@click.argument("model")
@click.argument("recording", required=False, metavar="[FILE]")
@click.option(
    "--minutes",
    type=click.FloatRange(0.2, 600),
    default=5.0,
    show_default=True,
    help="How long to hear at most.",
)
@click.option("--device", metavar="NAME", help="A microphone, as `kws devices` lists them.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the lines for kws.toml there.")
def calibrate(
    model: str, recording: str | None, *, minutes: float, device: str | None, out: Path | None
) -> None:
    """Set threshold and gain of MODEL to your room, heard while nobody says the word.

    Listens to the microphone, or to FILE. Other talk, music and machines should go on as usual.
    """
    from kws.commands.calibrate_room import fragment, measure_room
    from kws.config import SourceSettings
    from kws.sources import open_source
    from kws.spotter import open_for_sources

    if out and out.exists():
        raise ConfigError(f"A new file must be written. Received: {out}, which exists. Remove it.")
    opened = open_for_sources(model)
    with open_source(SourceSettings(input=recording or "mic", device=device)) as source:
        click.echo(
            f"Hearing {source.name}; do not say {' or '.join(opened.manifest.keywords)}.", err=True
        )
        room = measure_room(source, opened, seconds=60 * minutes)
    text = fragment(room, model=model)
    if out:
        out.write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


@cli.command()
@click.option(
    "--uri",
    multiple=True,
    metavar="URI",
    help="tcp://HOST:PORT or unix:///PATH; several are possible. Default tcp://127.0.0.1:10400, "
    "this machine only; tcp://0.0.0.0:10400 is for the whole network.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|FILE",
    help="A bundled model or a .tflite; several are possible. Default computer.",
)
@click.option(
    "--preload-model",
    multiple=True,
    metavar="NAME|FILE",
    help="The same; all models are preloaded.",
)
@click.option(
    "--custom-model-dir",
    multiple=True,
    metavar="DIR",
    help="A folder whose .tflite files are served too; new files are found while it runs.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    callback=_finite,
    metavar="P",
    help="How sure, 0..1, for all keywords; default: as each model says.",
)
@click.option(
    "--trigger-level",
    type=click.IntRange(1, 100),
    metavar="N",
    help="Blocks of 80 ms above the threshold before a detection; default 1.",
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
    help="Record what clients send there: up to 1000 clips of a minute, 1 GB, 30 days.",
)
@click.option(
    "--max-clients",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Clients at once; default 128.",
)
@click.option(
    "--idle-seconds",
    "idle_s",
    type=click.FloatRange(1, 86_400),
    callback=_finite,
    metavar="S",
    help="Disconnect a client that sends nothing for so long; default 300.",
)
@click.option(
    "--zeroconf",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Announce the service, for Home Assistant to find it.",
)
@_LOG_FORMAT
@click.pass_context
def wyoming(ctx: click.Context, /, **options: Any) -> None:
    """Serve keywords to Home Assistant and its satellites, by the Wyoming protocol.

    Needs the extra kws[wyoming].
    """
    import asyncio

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
    """Run the command; say what went wrong, if anything did."""
    try:
        code = cli.main(arguments, prog_name="kws", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KwsError as error:
        click.echo(f"Error: {error}", err=True)
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
    """Open what the process was started without, lest the next file takes its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if number:
                setattr(sys, name, os.fdopen(opened, "w"))


def _flushed(code: int) -> int:
    """Write out what is left; where that fails, keep Python from trying again and complaining."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or (_BROKEN_PIPE if isinstance(error, BrokenPipeError) else KwsError.exit_code)
    return code


@functools.cache
def _workbench() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="kws.commands")}


def _missing(command: str, error: ImportError) -> ConfigError:
    extra = "'kws[train]'" if command in _workbench() else "kws"
    return ConfigError(
        f"The packages that `kws {command}` needs must be installed. Received: {error}. "
        f"Run `pip install {extra}`."
    )


def _unavailable(name: str, error: ImportError) -> click.Command:
    """Return a stand-in that takes any arguments and raises what is the matter."""

    def explain(arguments: tuple[str, ...]) -> NoReturn:
        raise _missing(name, error) from error

    return click.Command(
        name,
        callback=explain,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        short_help="Needs pip install 'kws[train]'.",
        add_help_option=False,
    )


def _settings(
    path: Path | None,
    *,
    model: str | None,
    source: str | None,
    device: str | None,
    threshold: float | None,
    false_alarms_per_hour: float | None,
    no_vad: bool,
    chunk_ms: int | None,
) -> "Config":
    """Read kws.toml and put the options over it."""
    from msgspec.structs import replace

    from kws.config import Config, load_config

    def over(table: Any, **given: Any) -> Any:
        return replace(table, **{key: value for key, value in given.items() if value is not None})

    config = load_config(path) if path else Config()
    if config.sources or config.models:
        many = "[[sources]]" if config.sources else "[[models]]"
        raise ConfigError(
            f"`kws listen` hears one source with one model. Received: {many} in {path}. Write "
            f"[source] and [model], or run `kws daemon --config {path}`."
        )
    decision = config.decision
    if threshold is not None or false_alarms_per_hour is not None:
        decision = replace(
            decision,
            threshold=threshold,
            thresholds={},
            false_alarms_per_hour=false_alarms_per_hour,
        )
    return replace(
        config,
        model=over(config.model, name=model),
        source=over(config.source, input=source, device=device, chunk_ms=chunk_ms),
        gate=over(config.gate, enabled=False if no_vad else None),
        decision=decision,
    )
