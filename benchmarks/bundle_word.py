"""Bundle what `kws new` made of this project's data as a wake word: bundle_word.py WORK.

`kws new` cannot know whose data it was given; in a bundled model sources and licences are written
out. The card beside it is written by hand.
"""

import sys
from pathlib import Path

from msgspec.structs import replace

from kws.manifest import DataSource, read_manifest
from kws_train.data.audio_files import audio_files
from kws_train.evaluate.calibrate import write_manifest
from kws_train.own_word.workspace import Workspace

MODELS = Path(__file__).parent.parent / "kws/models"


def main(folder: Path) -> None:
    """Write the finished model of a work folder to kws/models, under its keyword's name."""
    workspace = Workspace(folder)
    manifest, _ = read_manifest(workspace.model)
    bundled = replace(
        manifest,
        description=f"{manifest.name.replace('_', ' ')}: English, any voice",
        licence="Apache-2.0",
        data=sources(workspace, manifest.name),
    )
    out = MODELS / f"{manifest.name}.tflite"
    write_manifest(workspace.model, bundled, out)
    print(f"{out}: {out.stat().st_size / 1000:.1f} kB")


def sources(workspace: Workspace, keyword: str) -> tuple[DataSource, ...]:
    """Return what it was trained on."""
    parts = [workspace.recordings / split for split in ("train", "validation")]
    recorded = sum(len(audio_files(part)) for part in parts if part.is_dir())
    synthetic = DataSource(
        name="Kokoro-82M voices",
        licence="Apache-2.0",
        clips=len(audio_files(workspace.synthetic_all / keyword)),
    )
    people = DataSource(name="Picovoice wake-word-benchmark", licence="Apache-2.0", clips=recorded)
    librispeech = DataSource(
        name="LibriSpeech dev-clean (Panayotov et al. 2015), first half of the speakers",
        licence="CC BY 4.0",
    )
    noise = DataSource(
        name="Speech Commands' background noise, ESC-10 (Piczak 2015) folds 1 to 3",
        licence="CC BY 4.0, CC BY 3.0 and per clip",
    )
    return (synthetic, *((people,) if recorded else ()), librispeech, noise)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
