"""The classes behind the `kws` command: sections in its help, -h and -v everywhere, completion.

A distribution adds commands through the entry points of the group `kws.commands`. They are loaded
when they are called or listed; made with `Command` or `Group`, they name their section of the help.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from kws.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from kws.logs import LogFormat

__all__ = [
    "LISTEN",
    "MODEL",
    "OWN_WORD",
    "SECTIONS",
    "WORKBENCH",
    "Command",
    "Group",
    "NameOrFile",
    "RootGroup",
    "configure_logs",
    "has_log_format",
    "only_one",
]

LISTEN, OWN_WORD, WORKBENCH = SECTIONS = ("Listen", "Your own word", "Workbench")

_CONTEXT = {"help_option_names": ["-h", "--help"]}
_LOGS = "kws.logs"
_BROKEN_PIPE = 141


class Command(click.Command):
    """A command with -h and -v.

    Parameters
    ----------
    section : str
        Its section in the help of `kws`, one of `SECTIONS`.
    """

    def __init__(self, *args: Any, section: str = WORKBENCH, **kwargs: Any) -> None:
        kwargs["context_settings"] = _CONTEXT | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)
        self.section = section
        self.params.append(_verbose_option())


class Group(click.Group):
    """A group of such commands, itself with -h and -v; parameters as of `Command`."""

    command_class = Command

    def __init__(self, *args: Any, section: str = WORKBENCH, **kwargs: Any) -> None:
        kwargs["context_settings"] = _CONTEXT | (kwargs.get("context_settings") or {})
        super().__init__(*args, **kwargs)
        self.section = section
        self.params.append(_verbose_option())


class RootGroup(Group):
    """The commands defined in `kws.cli`, and those of installed entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names: the runtime's as they are defined, then the others by name."""
        return [*self.commands, *sorted(_entry_points().keys() - self.commands.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; one that cannot be imported is replaced by one that says why."""
        command = super().get_command(ctx, cmd_name)
        if command is not None or cmd_name not in _entry_points():
            return command
        try:
            loaded: click.Command = _entry_points()[cmd_name].load()
        except ImportError as error:
            return _unavailable(cmd_name, error)
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name.

        Raises
        ------
        click.UsageError
            If there is none; the message suggests the nearest name.
        """
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            hint = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"No such command `{name}`.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        shown = {name: one for name, one in found.items() if one is not None and not one.hidden}
        column = max(map(len, shown))
        limit = formatter.width - column - 4  # an indent of two, and two between the columns
        for section in SECTIONS:
            rows = [
                (name.ljust(column), command.get_short_help_str(limit))
                for name, command in shown.items()
                if getattr(command, "section", WORKBENCH) == section
            ]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> None:
        """Run a command and ignore its return value: it is no exit code."""
        try:
            super().invoke(ctx)
        except ImportError as error:
            raise _missing(str(ctx.invoked_subcommand), error) from error
        except BrokenPipeError:
            raise click.exceptions.Exit(_BROKEN_PIPE) from None


class NameOrFile(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """A known name or the path of a file, as text; the shell completes both.

    Parameters
    ----------
    names : callable
        Returns the known names; called for completion only.
    """

    name = "name|file"

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin like this; if there is none, ask the shell for files."""
        known = [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]
        return known or [CompletionItem(incomplete, type="file")]


def only_one(_ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> str:
    """Return the value of an option made with `multiple=True` that must be given once.

    Raises
    ------
    click.BadParameter
        If it is given several times: the last would override the others silently.
    """
    if len(values) > 1:
        raise click.BadParameter("give it once.", param=parameter)
    return values[0]


def configure_logs(
    ctx: click.Context, *, log_format: "LogFormat | None" = None, verbose: bool = False
) -> "Callable[[LogFormat], None]":
    """Configure the logs by the options seen so far, of the command and of the groups above it.

    Returns
    -------
    callable
        Changes the format of what is logged from then on.
    """
    from kws.logs import configure

    given = ctx.meta.setdefault(_LOGS, {"verbose": False})
    given["verbose"] |= verbose
    if log_format:
        given["log_format"] = log_format
    return configure(**given)


def has_log_format(ctx: click.Context) -> bool:
    """Return whether an option has set the format of the logs."""
    return "log_format" in ctx.meta.get(_LOGS, {})


def _verbose_option() -> click.Option:
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Log progress to standard error.",
    )


def _set_verbose(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        configure_logs(ctx, verbose=True)


def _bundled_names() -> Iterable[str]:
    from kws.model import bundled_models

    return bundled_models()


MODEL = NameOrFile(_bundled_names)
"""A bundled model's name or a .tflite."""


@functools.cache
def _entry_points() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="kws.commands")}


def _missing(command: str, error: ImportError) -> ConfigError:
    extra = "'kws[train]'" if command in _entry_points() else "kws"
    return ConfigError(
        f"The packages that `kws {command}` needs must be installed. Received: {error}. "
        f"Run `pip install {extra}`."
    )


def _unavailable(name: str, error: ImportError) -> click.Command:
    """Return a stand-in that takes any arguments and raises the reason."""

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
