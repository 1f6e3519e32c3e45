"""Fine-tuning on what was labelled: the recipe that a run goes on by."""

from pathlib import Path

from msgspec.structs import replace

from kws.errors import ConfigError
from kws.manifest import UNKNOWN, DataSource
from kws_train.fit.training import restore
from kws_train.mining.folder import MinedFolder
from kws_train.recipe import CtcRecipe, DataRecipe, Recipe, SpeechCorpus, WordCorpus

__all__ = ["fine_tuning"]

_EPOCHS = 5
_LEARNING_RATE = 3e-4
_WEIGHT = 10.0  # a clip of the room itself, against one of the corpora that weighs most
_MINED_SHARE = 0.4
_SOURCE = "Own recordings, labelled"


def fine_tuning(run: Path, folder: Path) -> Recipe:
    """Return the recipe that goes on from a run with the labelled clips of a folder.

    The run's own data stays in, so that nothing is forgotten, and validates. Clips of keywords are
    drawn ten times as often as any other. What is no keyword is an unknown word, and its whole clip
    is continuous speech, to which scenes come back where the run's model errs.

    Parameters
    ----------
    run : Path
        A run folder.
    folder : Path
        Of `kws mine`.

    Raises
    ------
    ConfigError
        If there is no trained run, nothing is labelled, or the labels are not the run's keywords.
    """
    recipe = restore(run)[1]
    mined = MinedFolder(folder.absolute())
    counts = mined.write_words()
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
        keep="last",  # the run's validation data says whether it forgets, not what it learns
        teacher=None,
    )
    augment = recipe.augment
    if not isinstance(recipe.model, CtcRecipe):  # which learns from sentences of known words
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
