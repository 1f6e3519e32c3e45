"""Bundle what `kws new` made of this project's data as a wake word: bundle_word.py WORK.

`kws new` cannot know whose data it was given; in a bundled model sources and licences are written
out. The card beside it is written by hand.
"""

import sys
from pathlib import Path

from msgspec.structs import replace

from kws.manifest import DataSource, read_manifest
from kws.model import open_model
from kws_train.data.audio_files import audio_files
from kws_train.evaluate.calibrate import write_manifest
from kws_train.own_word.workspace import Workspace

MODELS = Path(__file__).parent.parent / "kws/models"


def main(folder: Path) -> None:
    """Write the finished model of a work folder to kws/models, under its keyword's name."""
    workspace = Workspace(folder)
    manifest, _ = read_manifest(workspace.model)
    known = open_model("speech_embedding").manifest.data
    begun = [one for one in manifest.data if one in known]  # none of a small network
    bundled = replace(
        manifest,
        description=f"{manifest.name.replace('_', ' ')}: English, any voice",
        licence="Apache-2.0",
        data=(*begun, *sources(workspace, manifest.name)),
    )
    out = MODELS / f"{manifest.name}.tflite"
    write_manifest(workspace.model, bundled, out)
    print(f"{out}: {out.stat().st_size / 1000:.1f} kB")


def sources(workspace: Workspace, keyword: str) -> tuple[DataSource, ...]:
    """Return what it was trained on, the weights that it starts from excepted."""
    parts = [workspace.recordings / split for split in ("train", "validation")]
    recorded = sum(len(audio_files(part)) for part in parts if part.is_dir())
    synthetic = DataSource(
        name="Kokoro-82M voices",
        licence="Apache-2.0",
        clips=len(audio_files(workspace.synthetic_all / keyword)),
    )
    people = DataSource(name="Picovoice wake-word-benchmark", licence="Apache-2.0", clips=recorded)
    request = workspace.read_request()
    speech = dict.fromkeys(SPEECH[folder.name] for folder in request.speech)
    kinds = {path.parent.name for path in audio_files(workspace.noise / "train")}
    noise = NOISE if kinds & HOUSEHOLD else NOISE[:1]
    return (synthetic, *((people,) if recorded else ()), *speech, *noise)


SPEECH = {
    "librispeech": DataSource(
        name="LibriSpeech dev-clean (Panayotov et al. 2015), first half of the speakers",
        licence="CC BY 4.0",
    ),
    **dict.fromkeys(
        ("librispeech_train", "librispeech_other"),
        DataSource(
            name="LibriSpeech, parts of train and other, half of the speakers", licence="CC BY 4.0"
        ),
    ),
    "coffee_orders": DataSource(
        name="Picovoice speech-to-intent-benchmark, half of the orders", licence="Apache-2.0"
    ),
    "alphanumeric": DataSource(
        name="alphanumeric-audio-dataset (Sakshee5), half of the speakers", licence="MIT"
    ),
}
"""By the name of the folder."""
HOUSEHOLD = {"bg_noise", "false_activations", "noises"}
NOISE = (
    DataSource(
        name="Speech Commands' background noise, ESC-10 (Piczak 2015) folds 1 to 3",
        licence="CC BY 4.0, CC BY 3.0 and per clip",
    ),
    DataSource(name="Open Voice OS wake-word community dataset, noise", licence="public domain"),
)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
