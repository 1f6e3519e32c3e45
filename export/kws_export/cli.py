"""The command `kws export`: write the model file of a run."""

from pathlib import Path

import click

from kws.command_group import Command

__all__ = ["export"]


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .tflite to write.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["kws", "openwakeword"]),
    default="kws",
    show_default=True,
    help="openwakeword: .tflite and .onnx of a head, for programs on openWakeWord.",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8", "int16x8", "float32"]),
    default="int8",
    show_default=True,
    help="Number format of weights and activations.",
)
@click.option(
    "--frames",
    type=click.IntRange(1),
    help="Frames per call; default: the time stride of the model.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Divisor of the logits; above 1 it spreads posteriors near 1.",
)
@click.option(
    "--whole",
    is_flag=True,
    help="RUN is the .tflite of a head: write it with the speech embedding inside.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Write the file even if its outputs differ from the trained model.",
)
def export(
    run: Path,
    *,
    out: Path,
    file_format: str,
    quantize: str,
    frames: int | None,
    temperature: float,
    whole: bool,
    force: bool,
) -> None:
    """Write a trained model as one .tflite and verify it.

    RUN is a folder of `kws train`. The file holds the manifest. With `--format openwakeword`, RUN
    is a head's .tflite or the working folder of `kws new`.
    """
    if file_format == "openwakeword":
        _export_openwakeword(run, out)
        return
    if whole:
        from kws_export.whole import export_whole

        n_bytes = export_whole(run, out)
        click.echo(f"{out}: {n_bytes} bytes, with the speech embedding inside")
        return
    from kws_export.bundle import export_model

    agreement = export_model(
        run,
        out,
        quantization=quantize,  # type: ignore[arg-type]
        n_frames=frames,
        temperature=temperature,
        force=force,
    )
    click.echo(
        f"{out}: {out.stat().st_size} bytes, {quantize}; agrees with the trained model at "
        f"{agreement.argmax:.2%} of {agreement.n_outputs} outputs, "
        f"largest difference {agreement.largest_difference:.3f}"
    )


def _export_openwakeword(source: Path, out: Path) -> None:
    from kws.stderr import quiet_stderr

    with quiet_stderr():  # TensorFlow logs while it is imported
        from kws_export.openwakeword import export_openwakeword

    for one in export_openwakeword(source, out):
        click.echo(
            f"{one.keyword}: {', '.join(path.name for path in one.files)}; "
            f"averages {one.n_averaged} scores, largest difference {one.largest_difference:.3f}"
        )
