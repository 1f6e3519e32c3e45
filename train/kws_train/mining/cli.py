"""The command `kws mine`; the work is done in `collect`, `labeller` and `folder`."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kws.command_group import MODEL, Command

if TYPE_CHECKING:
    from kws.mined.folder import MinedFolder

__all__ = ["mine"]

_PATH = click.Path(path_type=Path)


@click.command(cls=Command)
@click.argument("model", required=False, type=MODEL)
@click.argument("recordings", metavar="[DIR]...", nargs=-1, type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Folder of clips, labels and words.")
@click.option("--keyword", metavar="WORD", help="Only this keyword of MODEL.")
@click.option("--n", default=200, show_default=True, type=click.IntRange(1), help="Clips at most.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Threshold that kws.toml sets; default: the one of the model.",
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Number of processes."
)
@click.option("--label/--no-label", default=None, help="Label now; default: if in a terminal.")
@click.option(
    "--player",
    metavar="COMMAND",
    help="Program that plays a WAV; default: pw-play, paplay or aplay.",
)
def mine(
    model: str | None,
    recordings: Sequence[Path],
    *,
    out: Path,
    keyword: str | None,
    n: int,
    threshold: float | None,
    jobs: int,
    label: bool | None,
    player: str | None,
) -> None:
    """Find clips that a model is unsure of, and label them by ear.

    DIR holds the clips kept by `[recording]` of the daemon, or recordings of any length. The same
    command resumes; without MODEL and DIR, the clips in --out are labelled. `kws train --fine-tune`
    trains on the labels.
    """
    from kws.mined.folder import MinedFolder
    from kws_train.mining.collect import collect_candidates
    from kws_train.mining.training_clips import write_training_clips

    in_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if label and not in_terminal:
        raise click.UsageError("--label needs a terminal. Run it in one, or leave --label out.")
    if threshold is not None and not math.isfinite(threshold):
        raise click.UsageError(f"--threshold must be a number from 0 to 1. Received: {threshold}.")
    if bool(model) != bool(recordings):
        raise click.UsageError("Give MODEL and DIR, or neither to label what --out holds.")
    if model:
        found = collect_candidates(
            model,
            recordings,
            out,
            keyword=keyword,
            threshold=threshold,
            n=n,
            n_jobs=jobs,
            progress=sys.stderr.isatty(),
        )
        click.echo(
            f"{out}: {found.n_files} files processed, {found.hours:.2f} h; {found.n_peaks} peaks, "
            f"{len(found.candidates)} selected; {found.n_labelled} already labelled; "
            f"{len(found.left_out)} files skipped"
        )
    folder = MinedFolder(out)
    if label is None:
        label = in_terminal
    if label and any(one.id not in folder.labels() for one in folder.candidates()):
        _label(folder, player)
    counts = write_training_clips(folder)
    summary = ", ".join(f"{word} {count}" for word, count in counts.items())
    click.echo(f"{folder.words}: {summary or 'no clips, nothing is labelled yet'}")
    if counts:
        click.echo(f"Next: kws train --fine-tune {out} --start RUN --data DATA --out RUN2")


def _label(folder: "MinedFolder", player: str | None) -> None:
    from rich.console import Console

    from kws_train.mining.clip_player import player_command
    from kws_train.mining.labeller import label_candidates, read_keys

    command = player_command(player)
    with read_keys(sys.stdin) as key:
        n_left = label_candidates(folder, player=command, console=Console(), key=key)
    if n_left:
        click.echo(f"{n_left} candidates are left; run the same command to continue.")
