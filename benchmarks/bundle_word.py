"""Bundle a model that `kws new` made of this project's data as a wake word: bundle_word.py WORK.

`kws new` does not know the sources and licences of its data; this adds them to the manifest. The
model card beside it is written by hand.
"""

import sys
from pathlib import Path

from msgspec.structs import replace

from kws.manifest import DataSource, read_manifest
from kws_train.data.audio_files import audio_files
from kws_train.evaluate.calibrate import write_manifest
from kws_train.own_word.workspace import Work

MODELS = Path(__file__).parent.parent / "kws/models"


def main(folder: Path) -> None:
    """Write the finished model of a working folder to kws/models, named after its keyword."""
    work = Work(folder)
    manifest, _ = read_manifest(work.model)
    bundled = replace(
        manifest,
        description=f"{manifest.name.replace('_', ' ')}: English, any voice",
        licence="Apache-2.0",
        data=sources(work, manifest.name),
    )
    out = MODELS / f"{manifest.name}.tflite"
    write_manifest(work.model, bundled, out)
    print(f"{out}: {out.stat().st_size / 1000:.1f} kB")


def sources(work: Work, keyword: str) -> tuple[DataSource, ...]:
    """Return the sources of the training data."""
    parts = [work.recorded / split for split in ("train", "validation")]
    recorded = sum(len(audio_files(part)) for part in parts if part.is_dir())
    said = DataSource(
        name="Kokoro-82M voices", licence="Apache-2.0", clips=len(audio_files(work.said / keyword))
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
    return (said, people, librispeech, noise) if recorded else (said, librispeech, noise)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
