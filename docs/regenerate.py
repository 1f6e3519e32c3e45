"""Write docs/commands.md from the help of the commands: python docs/regenerate.py."""

from collections.abc import Iterator
from pathlib import Path

import click

from kws.cli import cli

__all__ = ["PAGE", "render"]

PAGE = Path(__file__).with_name("commands.md")

_HEAD = """# Commands

The help of every command, written by `make docs`.

Exit codes: 0 done, 2 usage or configuration, 3 audio, 4 model, 5 hook configuration, 130 on Ctrl-C.
With `--json`, standard output holds JSON only; logs go to standard error.

## Tab completion

For bash 4.4 or newer, add this line to `~/.bashrc` and open a new shell:

```sh
eval "$(_KWS_COMPLETE=bash_source kws)"
```

It completes commands, options, files and the names of bundled models. For zsh, write `zsh_source`
and use `~/.zshrc`; for fish, run `_KWS_COMPLETE=fish_source kws | source`.
"""


def render() -> str:
    """Return the page: the help of every command and of every subcommand."""
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
