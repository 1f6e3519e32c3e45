"""Write what the commands say of themselves: python docs/regenerate.py.

That is docs/commands.md, and for the Debian package man pages and completion of three shells.
"""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete
from click_man.core import generate_man_page

from kws.cli import cli

__all__ = ["DEBIAN", "PAGE", "completions", "man_pages", "render"]

PAGE = Path(__file__).with_name("commands.md")
DEBIAN = Path(__file__).parents[1] / "deploy" / "debian"

_HEAD = """# Commands

The help of every command, written by `make docs`.

Exit codes: 0 done, 2 usage or configuration, 3 audio, 4 model, 5 hook configuration, 130 on Ctrl-C.
With `--json`, standard output holds JSON only; logs go to standard error.

## Tab completion

The Debian package installs it. Otherwise, for bash 4.4 or newer, add this line to `~/.bashrc` and
open a new shell:

```sh
eval "$(_KWS_COMPLETE=bash_source kws)"
```

It completes commands, options, files and the names of bundled models. For zsh, write `zsh_source`
and use `~/.zshrc`; for fish, run `_KWS_COMPLETE=fish_source kws | source`.
"""


_SUMMARY = 200
_FILES = """.SH FILES
.TP
.I /etc/kws/kws.toml
The settings of the system service, with an explanation of every key.
.SH SEE ALSO
"""


def render() -> str:
    """Return the page: the help of every command and of every subcommand."""
    sections = [
        f"\n## {name}\n\n```\n{text}\n```\n" for name, text in _helps(cli, "kws", parent=None)
    ]
    return _HEAD + "".join(sections)


def man_pages() -> dict[str, str]:
    """Return the man pages of section 1 by the names of their files."""
    root = click.Context(_whole(cli), info_name="kws")
    pages = {f"{name}.1": page for name, page in _man_pages(root)}
    names = sorted(name.removesuffix(".1") for name in pages if name != "kws.1")
    pages["kws.1"] += _FILES + ",\n".join(f".BR {name} (1)" for name in names) + "\n"
    return pages


def completions() -> dict[str, str]:
    """Return the completion scripts by the names of their files."""
    kinds = {"kws.bash": BashComplete, "_kws": ZshComplete, "kws.fish": FishComplete}
    made = {name: kind(cli, {}, "kws", "_KWS_COMPLETE") for name, kind in kinds.items()}
    return {name: shell.source().strip() + "\n" for name, shell in made.items()}


def _whole(command: click.Command) -> click.Command:
    """Return a copy for click-man: with the commands of entry points, and whole first sentences."""
    summary = command.get_short_help_str(_SUMMARY)
    if not isinstance(command, click.Group):
        one = copy.copy(command)
        one.short_help = summary
        return one
    ctx = click.Context(command)
    found = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
    commands = {name: _whole(one) for name, one in found.items() if one}
    described = {"help": command.help, "short_help": summary, "params": command.params}
    return click.Group(command.name, commands=commands, **described)


def _man_pages(ctx: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the name and the page of a command and of those below it."""
    # Without a version and a date, which would change each page at every release.
    page = generate_man_page(ctx, version="", date=" ")
    lines = ["\\&" + line if line[:1] == "'" else line.rstrip() for line in page.splitlines()]
    yield ctx.command_path.replace(" ", "-"), "\n".join(lines) + "\n"
    if isinstance(ctx.command, click.Group):
        for name, command in ctx.command.commands.items():
            yield from _man_pages(click.Context(command, parent=ctx, info_name=name))


def _helps(
    command: click.Command, name: str, *, parent: click.Context | None
) -> Iterator[tuple[str, str]]:
    own = name.rpartition(" ")[2]
    ctx = click.Context(
        command,
        info_name=own,
        parent=parent,
        terminal_width=80,
        max_content_width=80,
        **command.context_settings,
    )
    yield name, command.get_help(ctx)
    if isinstance(command, click.Group):
        for sub in command.list_commands(ctx):
            if child := command.get_command(ctx, sub):
                yield from _helps(child, f"{name} {sub}", parent=ctx)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    for folder, files in (("man", man_pages()), ("completion", completions())):
        shutil.rmtree(DEBIAN / folder, ignore_errors=True)
        (DEBIAN / folder).mkdir()
        for name, text in files.items():
            (DEBIAN / folder / name).write_text(text, encoding="utf-8")
