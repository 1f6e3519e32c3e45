"""The command `kws export`: write a run folder's model as a model file."""

from pathlib import Path

import click

__all__ = ["export"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The .tflite to write.")
@click.option(
    "--quantize",
    type=click.Choice(["int8", "int16x8", "float32"]),
    default="int8",
    show_default=True,
    help="Number format of weights and activations.",
)
@click.option(
    "--frames", type=click.IntRange(1), help="Frames to a call; default: the model's time stride."
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Divides the logits; above 1, posteriors near 1 lie further apart.",
)
@click.option(
    "--embedding",
    "speech",
    metavar="SPEECH",
    type=click.Path(path_type=Path),
    help="Write a backbone for `kws enroll` instead, with speech of this corpus as background.",
)
@click.option("--force", is_flag=True, help="Write the file even if it disagrees with the model.")
def export(
    run: Path,
    *,
    out: Path,
    quantize: str,
    frames: int | None,
    temperature: float,
    speech: Path | None,
    force: bool,
) -> None:
    """Write the model trained in RUN as one .tflite with its manifest, verified."""
    from kws_export.backbone import export_backbone
    from kws_export.bundle import export_model

    if speech:
        n_values = export_backbone(run, out, speech=speech, n_frames=frames)
        click.echo(f"{out}: {out.stat().st_size} bytes, int8; embeddings of {n_values} values")
        return

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
