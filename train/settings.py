"""A training recipe: every setting of a run, as read from a TOML file.

A recipe says what is trained and from which folders; where the data lies is given with `--data`.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import tomli_w
from msgspec import Meta

from kws.audio import SAMPLE_RATE_HZ
from kws.errors import ConfigError, did_you_mean
from kws.manifest import DataSource, DecisionDefaults, FeatureSettings

__all__ = [
    "AugmentRecipe",
    "Codec",
    "DataRecipe",
    "FitRecipe",
    "LossName",
    "ModelRecipe",
    "Precision",
    "Recipe",
    "SearchRange",
    "SpeechCorpus",
    "WordCorpus",
    "load_recipe",
    "write_recipe",
]

Codec: TypeAlias = Literal["telephone", "gsm", "opus", "mp3"]
Precision: TypeAlias = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
LossName: TypeAlias = Literal["set", "focal", "max_pooling"]

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
Speed = Annotated[float, Meta(ge=0.25, le=4.0)]
Semitones = Annotated[float, Meta(ge=-12.0, le=12.0)]
Voices = Annotated[int, Meta(ge=1, le=64)]
Size = Annotated[int, Meta(ge=1, le=1024)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a recipe."""


class WordCorpus(_Table, frozen=True, kw_only=True):
    """A folder of isolated words: `word/speaker_nohash_n.*` or any `word/clip.*`."""

    path: str
    """Relative to the data folder."""
    split: Literal["hash", "train"] = "hash"
    """`hash`: by the official speaker hash; `train`: all of it trains."""
    unknown: bool = False
    """True: no word in here is a keyword, whatever its folder is called."""
    optional: bool = False
    """True: train without it, saying so, where the folder is missing."""
    weight: Annotated[float, Meta(gt=0.0)] = 1.0
    """How often a clip is drawn, against clips of the same word in other corpora."""
    synthetic: bool = False
    first: Share = 1.0
    """With `split = "train"`: which part of each word's clips, by name; the rest is kept apart."""


class SpeechCorpus(_Table, frozen=True, kw_only=True):
    """A LibriSpeech-shaped folder of continuous speech."""

    path: str
    alignment: str
    """Word times, made by `kws align`, relative to the data folder."""
    speakers: Literal["first", "all"] = "first"
    """`first`: the first half by SPEAKERS.TXT, the second being kept for evaluation."""
    word_weight: Annotated[float, Meta(ge=0.0)] = 1.0
    """Weight of keywords cut out of this corpus; 0 leaves them out."""


class DataRecipe(_Table, frozen=True, kw_only=True):
    """`[data]`: what is learned from."""

    keywords: list[str]
    words: list[WordCorpus]
    speech: list[SpeechCorpus] = []
    noise: list[str] = []
    homophones: dict[str, list[str]] = {}
    """Words of the speech corpora that sound like a keyword and so are neither it nor unknown."""
    sources: list[DataSource] = []
    """What the manifest and the card say about the data."""

    def __post_init__(self) -> None:
        if not self.keywords or len(set(self.keywords)) != len(self.keywords):
            raise ValueError("keywords must be present and differ from one another")
        if len({keyword.casefold() for keyword in self.keywords}) < len(self.keywords):
            raise ValueError("keywords must not differ in case alone")
        if any(keyword.startswith("_") for keyword in self.keywords):
            raise ValueError("keywords must not begin with an underscore")
        if not all(keyword and keyword.isprintable() for keyword in self.keywords):
            raise ValueError("keywords must be printable text")
        if strange := set(self.homophones) - set(self.keywords):
            raise ValueError(f"homophones must be of keywords; received `{min(strange)}`")


class ModelRecipe(_Table, frozen=True, kw_only=True):
    """`[model]`: architecture and its sizes."""

    architecture: Literal["crnn"] = "crnn"
    channels: tuple[Size, Size, Size] = (16, 24, 64)
    """2-D front, 2-D middle, 1-D width."""
    n_blocks: Annotated[int, Meta(ge=0, le=32)] = 3
    kernel_frames: Annotated[int, Meta(ge=1, le=64)] = 9
    gru_units: Size = 80
    dropout: Share = 0.1


class AugmentRecipe(_Table, frozen=True, kw_only=True):
    """`[augment]`: how a scene is made from clips."""

    scene_s: Annotated[float, Meta(gt=0.5, le=30.0)] = 2.4
    keyword_share: Share = 0.6
    """Share of isolated words that are keywords; all keywords are equally frequent."""
    speech_share: Share = 0.2
    """Share of scenes that are continuous speech alone."""
    silence_share: Share = 0.08
    """Share of scenes that hold no speech at all."""
    context_share: Share = 0.35
    """Share of word scenes with other speech before and after the word."""
    speech_word_share: Share = 0.4
    """Share of unknown words that are cut out of the speech corpora."""
    noise_share: Share = 0.7
    snr_db: tuple[float, float] = (0.0, 25.0)
    gain_db: tuple[float, float] = (-18.0, 6.0)
    speed: tuple[Speed, Speed] = (0.87, 1.15)
    room_share: Share = 0.35
    room: Literal["polack", "pyroomacoustics"] = "polack"
    """Noise that decays, drawn anew for each scene, or image sources in a bank of shoeboxes."""
    room_bank: Size = 100
    """How many rooms the bank of `pyroomacoustics` has."""
    cut_share: Share = 0.15
    """Share of scenes that fall into digital silence after the last word, as a file that ends."""
    pitch_share: Share = 0.0
    """Share of isolated words whose pitch is changed, apart from what their speed does to it."""
    pitch_semitones: tuple[Semitones, Semitones] = (-3.0, 3.0)
    babble_share: Share = 0.0
    """Share of scenes in which other people talk, all at once, in the background."""
    babble_voices: tuple[Voices, Voices] = (3, 8)
    babble_snr_db: tuple[float, float] = (0.0, 20.0)
    microphone_share: Share = 0.0
    """Share of scenes recorded with a random cheap microphone: a band, resonances, notches."""
    codec_share: Share = 0.0
    """Share of scenes sent through a lossy codec."""
    codecs: tuple[Codec, ...] = ("telephone", "gsm", "mp3")
    tilt_db: float = 8.0
    """Greatest deviation of the random microphone response from flat."""
    time_masks: Count = 1
    time_mask_frames: Count = 20
    band_masks: Count = 2
    bands_per_mask: Count = 6
    mixup_share: Share = 0.0
    """Share of scenes that are mixed with another one, targets with targets."""
    mixup_alpha: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.4

    def __post_init__(self) -> None:
        if self.codec_share and not self.codecs:
            raise ValueError("codecs must name one at least where codec_share is above 0")
        if self.babble_voices[0] > self.babble_voices[1]:
            raise ValueError("babble_voices must be the fewest and the most, in this order")


class FitRecipe(_Table, frozen=True, kw_only=True):
    """`[fit]`: optimisation."""

    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 1
    epochs: Annotated[int, Meta(ge=1)] = 50
    cosine_epochs: Annotated[int, Meta(ge=1)] | None = None
    """Epochs after which the learning rate would be zero; by default the last one."""
    scenes_per_epoch: Annotated[int, Meta(ge=1)] = 12_800
    validation_scenes: Annotated[int, Meta(ge=1)] = 2_560
    batch_size: Annotated[int, Meta(ge=1)] = 128
    learning_rate: Annotated[float, Meta(gt=0.0)] = 2e-3
    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.01
    loss: LossName = "set"
    label_smoothing: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    focal_gamma: Annotated[float, Meta(ge=0.0)] = 2.0
    """Of `loss = "focal"`."""
    precision: Precision = "auto"
    """Of the computation; weights are float32. `auto`: mixed_float16 on a GPU."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights the run ends with: that of least validation loss, or the last."""
    patience: Annotated[int, Meta(ge=1)] = 15
    """Epochs without a better validation loss before training stops."""


class SearchRange(_Table, frozen=True, kw_only=True):
    """A table of `[search]`: what `kws train --search` may draw for one setting."""

    low: int | float | None = None
    high: int | float | None = None
    """Both ends are included. Where both are whole numbers, only such are drawn."""
    step: Annotated[float, Meta(gt=0.0)] | Annotated[int, Meta(gt=0)] | None = None
    log: bool = False
    """Draw evenly on a logarithmic scale."""
    choices: list[Any] = []
    """In place of a range: the values themselves."""

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if self.choices and ends == (None, None):
            return
        if self.choices or self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("a range must have either `choices`, or `low` and a greater `high`")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a range with `log` must begin above 0 and have no `step`")


class Recipe(_Table, frozen=True, kw_only=True):
    """The whole recipe."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
    """As in the manifest, which it goes into."""
    description: str = ""
    licence: str = ""
    data: DataRecipe
    features: FeatureSettings
    model: ModelRecipe = ModelRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    fit: FitRecipe = FitRecipe()
    decision: DecisionDefaults = DecisionDefaults()
    then: list[dict[Literal["data", "augment", "fit", "decision"], dict[str, Any]]] = []
    """`[[then]]`: further stages, each begun with the one before; their tables hold changes."""
    search: dict[str, SearchRange] = {}
    """`[search]`: ranges of settings, by keys such as `"fit.learning_rate"`."""

    def __post_init__(self) -> None:
        if self.features.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(
                f"features.sample_rate_hz must be {SAMPLE_RATE_HZ}, as every clip is read at; "
                f"received {self.features.sample_rate_hz}"
            )

    def stages(self) -> list["Recipe"]:
        """Return the recipe of each stage, first to last; none of them has stages of its own."""
        recipes = [msgspec.structs.replace(self, then=[])]
        for stage in self.then:
            tables = msgspec.to_builtins(recipes[-1])
            for name, changes in stage.items():
                tables[name] |= changes
            recipes.append(msgspec.convert(tables, Recipe))
        return recipes


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not TOML, or breaks a rule; the message names the key.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        recipe = msgspec.convert(tables, Recipe)
        recipe.stages()
    except OSError as error:
        raise ConfigError(
            f"The recipe must be a readable file. Received: {path} ({error.strerror}). "
            f"Give its path with --config; bundled ones lie in train/recipes/."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be TOML. Received: {error}. Mend that line.") from error
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path} breaks a rule of recipes. Received: {error}.{_nearest(str(error))} "
            f"docs/training.md lists every key."
        ) from error
    return recipe


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe with all its values, so that `load_recipe` gives the same one."""
    path.write_text(tomli_w.dumps(_set_values(msgspec.to_builtins(recipe))), encoding="utf-8")


def _set_values(value: Any) -> Any:
    """Leave out what is None, which TOML has no word for."""
    if isinstance(value, dict):
        return {key: _set_values(one) for key, one in value.items() if one is not None}
    return [_set_values(one) for one in value] if isinstance(value, list | tuple) else value


def _nearest(message: str) -> str:
    tables = (
        Recipe,
        DataRecipe,
        WordCorpus,
        SpeechCorpus,
        ModelRecipe,
        AugmentRecipe,
        FitRecipe,
        FeatureSettings,
        DecisionDefaults,
        SearchRange,
    )
    known = [key for table in tables for key in table.__struct_fields__]
    key = message.partition("unknown field `")[2].partition("`")[0]
    return did_you_mean(key, known) if key else ""
