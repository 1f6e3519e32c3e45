"""The recipe of a fine-tuning: a trained run continued with labelled clips of its own rooms."""

from pathlib import Path

from msgspec.structs import replace

from kws.errors import ConfigError
from kws.manifest import UNKNOWN, DataSource
from kws.mined.folder import MinedFolder
from kws_train.fit.training import restore
from kws_train.mining.training_clips import write_training_clips
from kws_train.recipe import CtcRecipe, DataRecipe, Recipe, SpeechCorpus, WordCorpus

__all__ = ["fine_tuning_recipe"]

_EPOCHS = 5
_LEARNING_RATE = 3e-4
_WEIGHT = 10.0  # of a labelled clip, relative to the heaviest corpus
_MINED_SHARE = 0.4
_SOURCE = "Own recordings, labelled"


def fine_tuning_recipe(run: Path, folder: Path) -> Recipe:
    """Return the recipe that continues a run with the labelled clips of a folder.

    The run's own data is kept, against forgetting, and validates. Labelled clips of keywords are
    drawn ten times as often as any other. Clips without a keyword are unknown words, and each whole
    clip is continuous speech as well, of which hard negatives are mined.

    Parameters
    ----------
    run : Path
        A run folder.
    folder : Path
        A folder of `kws mine`.

    Raises
    ------
    ConfigError
        If there is no trained run, no label, or a label that is no keyword of the run.
    """
    recipe = restore(run)[1]
    mined = MinedFolder(folder.absolute())
    counts = write_training_clips(mined)
    if not counts:
        raise ConfigError(
            f"A fine-tuning must have labelled clips. Received: {folder} without any. Run "
            f"`kws mine --out {folder}` and label some."
        )
    if strange := sorted(set(counts) - {UNKNOWN, *recipe.data.keywords}):
        raise ConfigError(
            f"Clips to fine-tune on must be labelled with keywords of the run. Received: "
            f"`{strange[0]}` in {folder}; {run} knows {', '.join(recipe.data.keywords)}. Mine with "
            f"the model that was exported from it."
        )
    fit = replace(
        recipe.fit,
        epochs=_EPOCHS,
        cosine_epochs=None,
        learning_rate=min(_LEARNING_RATE, recipe.fit.learning_rate),
        keep="last",  # the validation data of the run lacks the labelled clips
        teacher=None,
    )
    augment = recipe.augment
    if not isinstance(recipe.model, CtcRecipe):  # CTC models train on transcribed sentences only
        augment = replace(augment, mined_share=max(_MINED_SHARE, augment.mined_share))
    return replace(recipe, data=_data(recipe.data, mined, counts), augment=augment, fit=fit)


def _data(data: DataRecipe, mined: MinedFolder, counts: dict[str, int]) -> DataRecipe:
    before = [one for one in data.words if one.path != str(mined.words)]
    weight = _WEIGHT * max(one.weight for one in before)
    words = WordCorpus(path=str(mined.words), split="train", weight=weight)
    speech = [SpeechCorpus(path=str(mined.speech))] if UNKNOWN in counts else []
    source = DataSource(name=_SOURCE, licence="of who recorded them", clips=sum(counts.values()))
    return replace(
        data,
        words=[*before, words],
        speech=[*(one for one in data.speech if one.path != str(mined.speech)), *speech],
        sources=[*(one for one in data.sources if one.name != _SOURCE), source],
    )
