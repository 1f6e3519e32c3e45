"""Write docs/commands.md out of the commands' own help: python docs/regenerate.py."""

from collections.abc import Iterator
from pathlib import Path

import click

from kws.cli import cli

__all__ = ["PAGE", "render"]

PAGE = Path(__file__).with_name("commands.md")

_HEAD = """# Commands

This page is made by `make docs` from the commands themselves.

Exit codes: 0 done, 2 usage or configuration, 3 audio, 4 model, 5 hook configuration, 130 on Ctrl-C.
With `--json`, standard output holds JSON alone; logs go to standard error.
"""


def render() -> str:
    """Return the page: the help of every command, of groups also their subcommands."""
    sections = [
        f"\n## {name}\n\n```\n{text}\n```\n" for name, text in _helps(cli, "kws", parent=None)
    ]
    return _HEAD + "".join(sections)


def _helps(
    command: click.Command, name: str, *, parent: click.Context | None
) -> Iterator[tuple[str, str]]:
    own = name.rpartition(" ")[2]
    ctx = click.Context(
        command,
        info_name=own,
        parent=parent,
        terminal_width=88,
        max_content_width=88,
        **command.context_settings if parent is None else {},
    )
    yield name, command.get_help(ctx)
    if isinstance(command, click.Group):
        for sub in command.list_commands(ctx):
            if child := command.get_command(ctx, sub):
                yield from _helps(child, f"{name} {sub}", parent=ctx)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
