"""Training recipes: every setting of a training, read from a TOML file.

A recipe names the folders of its data; they are relative to the folder given with `--data`.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
import tomli_w
from msgspec import Meta
from msgspec.structs import force_setattr

from kws.audio import SAMPLE_RATE_HZ
from kws.errors import ConfigError, did_you_mean
from kws.manifest import SILENCE, UNKNOWN, DataSource, DecisionDefaults, FeatureSettings
from kws.names import nfc

__all__ = [
    "EMBEDDING_FEATURES",
    "MODEL_RECIPES",
    "AugmentRecipe",
    "BcResnetRecipe",
    "BilstmRecipe",
    "CnnLstmRecipe",
    "Codec",
    "Conv1dLstmRecipe",
    "CrnnRecipe",
    "CtcRecipe",
    "DataRecipe",
    "DeepCnnRecipe",
    "DsCnnRecipe",
    "EmbeddingRecipe",
    "FitRecipe",
    "GruRecipe",
    "LossName",
    "LstmRecipe",
    "ModelRecipe",
    "Precision",
    "Recipe",
    "SearchRange",
    "SpeechCorpus",
    "StepRecipe",
    "TcResnetRecipe",
    "WindowRecipe",
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
FrameCount = Annotated[int, Meta(ge=1, le=256)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a recipe."""


class WordCorpus(_Table, frozen=True, kw_only=True):
    """A folder of words: `word/speaker_nohash_n.*`, `word/speaker/*` or any `word/clip.*`."""

    path: str
    """Relative to the data folder."""
    split: Literal["hash", "train", "validation"] = "hash"
    """`hash`: by the official speaker hash; `train`, `validation`: the whole folder."""
    unknown: bool = False
    """True: no word of this corpus is a keyword, whatever the name of its folder."""
    optional: bool = False
    """True: if the folder is missing, log that and train without it."""
    weight: Annotated[float, Meta(gt=0.0)] = 1.0
    """Relative frequency of a clip among clips of the same word in other corpora."""
    synthetic: bool = False
    first: Share = 1.0
    """With `split = "train"`: the share of each word's clips that is used, first by name."""


class SpeechCorpus(_Table, frozen=True, kw_only=True):
    """A folder of continuous speech: as LibriSpeech or, without an alignment, of any layout."""

    path: str
    alignment: str | None = None
    """Word times, made by `kws align`, relative to the data folder; None: unknown words."""
    speakers: Literal["first", "quarters", "all"] = "first"
    """`first`: the first half of SPEAKERS.TXT, because the second is for evaluation; folders
    without transcripts are used entirely. `quarters`: of every four folders of speakers, in order
    of name, two to train, the third to tune, and the fourth is for evaluation."""
    word_weight: Annotated[float, Meta(ge=0.0)] = 1.0
    """Weight of keywords cut out of this corpus; 0 excludes them."""
    optional: bool = False
    """True: if the folder is missing, log that and train without it."""


class DataRecipe(_Table, frozen=True, kw_only=True):
    """`[data]`: the training data."""

    keywords: list[str]
    words: list[WordCorpus]
    speech: list[SpeechCorpus] = []
    noise: list[str] = []
    """Folders, or patterns of files such as `noise/esc10/[123]-*`."""
    homophones: dict[str, list[str]] = {}
    """Words that sound like a keyword: in speech they count neither as it nor as unknown."""
    sources: list[DataSource] = []
    """Data sources for the manifest and the model card."""

    def __post_init__(self) -> None:
        force_setattr(self, "keywords", list(map(nfc, self.keywords)))
        force_setattr(self, "homophones", {nfc(k): words for k, words in self.homophones.items()})
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


class _Architecture(_Table, frozen=True, kw_only=True, tag_field="architecture"):
    """`[model]`: an architecture and its sizes."""

    dropout: Share = 0.1

    @property
    def architecture(self) -> str:
        """Its name in recipes."""
        return str(self.__struct_config__.tag)


class CrnnRecipe(_Architecture, frozen=True, kw_only=True, tag="crnn"):
    """Causal depthwise-separable CNN with a GRU on top."""

    channels: tuple[Size, Size, Size] = (16, 24, 64)
    """2-D front, 2-D middle, 1-D width."""
    n_blocks: Annotated[int, Meta(ge=0, le=32)] = 3
    kernel_frames: Annotated[int, Meta(ge=1, le=64)] = 9
    gru_units: Size = 80


class CtcRecipe(CrnnRecipe, frozen=True, kw_only=True, tag="ctc"):
    """The CRNN, trained on sequences of words (connectionist temporal classification)."""


class GruRecipe(_Architecture, frozen=True, kw_only=True, tag="gru"):
    """Stacked gated recurrent units."""

    units: tuple[Size, ...] = (80, 80)
    stack_frames: FrameCount = 2
    """Frames that are stacked before the first layer."""


class LstmRecipe(_Architecture, frozen=True, kw_only=True, tag="lstm"):
    """Stacked long short-term memory layers."""

    units: tuple[Size, ...] = (64, 64)
    stack_frames: FrameCount = 2


class DsCnnRecipe(_Architecture, frozen=True, kw_only=True, tag="ds_cnn"):
    """Depthwise-separable CNN (Zhang et al. 2017)."""

    channels: Size = 64
    n_blocks: Annotated[int, Meta(ge=0, le=32)] = 4
    pool_outputs: FrameCount = 30
    """Outputs of the running average."""


class TcResnetRecipe(_Architecture, frozen=True, kw_only=True, tag="tc_resnet"):
    """Temporal-convolution ResNet (Choi et al. 2019)."""

    channels: tuple[Size, ...] = (16, 24, 32, 48)
    """First layer and residual blocks; each block halves the frame rate."""
    kernel_frames: FrameCount = 9
    pool_outputs: FrameCount = 8


class BcResnetRecipe(_Architecture, frozen=True, kw_only=True, tag="bc_resnet"):
    """Broadcasted-residual network (Kim et al. 2021)."""

    width: Annotated[float, Meta(gt=0.0, le=8.0)] = 1.0
    """Multiplies all numbers of channels: BC-ResNet-1, -1.5, -2 …"""
    n_blocks: tuple[FrameCount, FrameCount, FrameCount, FrameCount] = (2, 2, 4, 4)
    sub_bands: FrameCount = 5
    """Groups of bands of the sub-spectral normalisation; divides the number of bands over 8."""
    stride_frames: FrameCount = 2
    """Of the first layer; 1 as published, 2 for half the work."""
    pool_outputs: FrameCount = 30


class _Window(_Architecture, frozen=True, kw_only=True):
    """An architecture that processes a whole window of frames at once."""

    window_frames: Annotated[int, Meta(ge=8, le=1024)] = 96
    hop_frames: FrameCount = 16
    """Frames from one window to the next."""


class Conv1dLstmRecipe(_Window, frozen=True, kw_only=True, tag="conv1d_lstm"):
    """1-D convolution, pooling, LSTM, dropout, dense."""

    channels: Size = 64
    kernel_frames: FrameCount = 5
    pool_frames: FrameCount = 4
    lstm_units: Size = 64


class CnnLstmRecipe(_Window, frozen=True, kw_only=True, tag="cnn_lstm"):
    """2-D CNN over a spectrogram, then an LSTM over its columns."""

    channels: tuple[Size, Size, Size] = (8, 16, 24)
    lstm_units: Size = 64


class DeepCnnRecipe(_Window, frozen=True, kw_only=True, tag="deep_cnn"):
    """Four blocks of 2-D convolution and pooling, dense; one keyword, a sigmoid."""

    channels: tuple[Size, Size, Size, Size] = (8, 16, 24, 32)
    dense_units: Size = 32


class BilstmRecipe(_Window, frozen=True, kw_only=True, tag="bilstm"):
    """LSTM over the window in both directions."""

    units: Size = 48
    stack_frames: FrameCount = 4


class EmbeddingRecipe(_Architecture, frozen=True, kw_only=True, tag="speech_embedding"):
    """Google's speech embedding with its published weights, six layers, and convolutions on it."""

    channels: Size = 64
    """Of the convolutions on its vectors."""


EMBEDDING_FEATURES = FeatureSettings(
    kind="logmel",
    window_samples=512,
    taper_samples=400,
    window="periodic_hann",
    n_mels=32,
    low_hz=60.0,
    high_hz=3800.0,
    mel_filters="slaney",
    preemphasis=0.0,
    periodogram=False,
    floor=1e-10,
    log_base="10",
    log_offset=2.0,
)
"""The front end published with Google's speech embedding, less the lifting of what lies 80 dB below
a chunk's loudest value."""

StepRecipe: TypeAlias = (
    CrnnRecipe
    | GruRecipe
    | LstmRecipe
    | DsCnnRecipe
    | TcResnetRecipe
    | BcResnetRecipe
    | EmbeddingRecipe
)
WindowRecipe: TypeAlias = Conv1dLstmRecipe | CnnLstmRecipe | DeepCnnRecipe | BilstmRecipe
ModelRecipe: TypeAlias = StepRecipe | WindowRecipe | CtcRecipe
MODEL_RECIPES = {str(model.__struct_config__.tag): model for model in get_args(ModelRecipe)}
"""Every architecture, by its name in recipes."""


class AugmentRecipe(_Table, frozen=True, kw_only=True):
    """`[augment]`: composition and augmentation of scenes."""

    domain: Literal["audio", "bands"] = "audio"
    """What scenes are added up of: samples, or powers of bands that are computed once."""
    scene_s: Annotated[float, Meta(gt=0.5, le=30.0)] = 2.4
    keyword_share: Share = 0.6
    """Share of isolated words that are keywords; all keywords are equally frequent."""
    speech_share: Share = 0.2
    """Share of scenes, apart from clips, that are continuous speech only."""
    silence_share: Share = 0.08
    """Share of scenes, including clips, without any speech."""
    clip_share: Share = 0.0
    """Share of scenes that are one unmodified clip followed by digital silence. The answer window
    is from the middle of the word to 320 ms after its end, so only for `loss = "max_pooling"`."""
    context_share: Share = 0.35
    """Share of word scenes with other speech before and after the word."""
    speech_word_share: Share = 0.4
    """Share of unknown words that are cut out of the speech corpora."""
    mined_share: Share = 0.0
    """Share of continuous speech around false alarms of the initial weights."""
    noise_share: Share = 0.7
    snr_db: tuple[float, float] = (0.0, 25.0)
    gain_db: tuple[float, float] = (-18.0, 6.0)
    speed: tuple[Speed, Speed] = (0.87, 1.15)
    room_share: Share = 0.35
    room: Literal["polack", "pyroomacoustics"] = "polack"
    """Decaying noise, drawn per scene, or image sources in a bank of shoebox rooms."""
    room_bank: Size = 100
    """Rooms in the bank of `pyroomacoustics`."""
    cut_share: Share = 0.15
    """Share of scenes with digital silence after the last word, as at the end of a file."""
    warp: tuple[Speed, Speed] = (1.0, 1.0)
    """Vocal tract length perturbation of whole scenes, for features over mel bands."""
    pitch_share: Share = 0.0
    """Share of isolated words whose pitch is shifted, in addition to the effect of speed."""
    pitch_semitones: tuple[Semitones, Semitones] = (-3.0, 3.0)
    babble_share: Share = 0.0
    """Share of scenes with several simultaneous talkers in the background."""
    babble_voices: tuple[Voices, Voices] = (3, 8)
    babble_snr_db: tuple[float, float] = (0.0, 20.0)
    microphone_share: Share = 0.0
    """Share of scenes with a random cheap microphone: band limits, resonances, notches."""
    codec_share: Share = 0.0
    """Share of scenes encoded with a lossy codec."""
    codecs: tuple[Codec, ...] = ("telephone", "gsm", "mp3")
    tilt_db: float = 8.0
    """Greatest deviation of the random microphone response from flat."""
    time_masks: Count = 1
    time_mask_frames: Count = 20
    band_masks: Count = 2
    bands_per_mask: Count = 6
    mixup_share: Share = 0.0
    """Share of scenes that are mixed with another scene, targets included."""
    mixup_alpha: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.4

    def __post_init__(self) -> None:
        if self.codec_share and not self.codecs:
            raise ValueError("codecs must name one at least where codec_share is above 0")
        if self.clip_share and self.scene_s < 1.5:
            raise ValueError(
                f"scene_s must be at least 1.5 where clip_share is above 0: a clip has a second, "
                f"and its answer half of one; received {self.scene_s}"
            )
        if self.babble_voices[0] > self.babble_voices[1]:
            raise ValueError("babble_voices must be the fewest and the most, in this order")


class FitRecipe(_Table, frozen=True, kw_only=True):
    """`[fit]`: optimisation."""

    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 1
    epochs: Annotated[int, Meta(ge=1)] = 50
    cosine_epochs: Annotated[int, Meta(ge=1)] | None = None
    """Epochs after which the learning rate is zero; by default `epochs`."""
    scenes_per_epoch: Annotated[int, Meta(ge=1)] = 12_800
    validation_scenes: Annotated[int, Meta(ge=1)] = 2_560
    batch_size: Annotated[int, Meta(ge=1)] = 128
    echo: Annotated[int, Meta(ge=1, le=16)] = 1
    """Consecutive batches that use a scene, each time with other masks, warp and tilt."""
    learning_rate: Annotated[float, Meta(gt=0.0)] = 2e-3
    average: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = None
    """Momentum of a running average of the weights, which is validated and saved."""
    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.01
    loss: LossName = "set"
    label_smoothing: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    focal_gamma: Annotated[float, Meta(ge=0.0)] = 2.0
    """For `loss = "focal"`."""
    pooled_outputs: Annotated[int, Meta(ge=1, le=15)] = 1
    """For `loss = "max_pooling"`: outputs whose posteriors are averaged, an odd number."""
    teacher: str | None = None
    """For distillation: a run folder with the same features and labels, evaluated at every step,
    or a model file or bundled name with the same labels, `_silence_` excepted, whose targets of
    clips are computed once; empty: none, where a recipe's base has one.
    """
    teacher_share: Share = 0.5
    temperature: Annotated[float, Meta(ge=1.0)] = 2.0
    precision: Precision = "auto"
    """Of computations; weights are float32. `auto`: mixed_float16 on a GPU."""
    frozen_layers: Count = 0
    """Number of layers, from the first, whose initial weights are not trained."""
    quantize_aware: bool = False
    """True: simulate the int8 model, with ranges that are learned and exported."""
    keep: Literal["best", "last"] = "best"
    """The final weights: of the epoch with the lowest validation loss, or of the last one."""
    start_share: Share = 0.0
    """Share of the initial weights in the final ones."""
    patience: Annotated[int, Meta(ge=1)] = 15
    """Epochs without a lower validation loss before training stops."""

    def __post_init__(self) -> None:
        force_setattr(self, "teacher", self.teacher or None)


class SearchRange(_Table, frozen=True, kw_only=True):
    """A table of `[search]`: the values of one setting for `kws train --search`."""

    low: int | float | None = None
    high: int | float | None = None
    """Both bounds are included. If both are integers, only integers are drawn."""
    step: Annotated[float, Meta(gt=0.0)] | Annotated[int, Meta(gt=0)] | None = None
    log: bool = False
    """Draw uniformly on a logarithmic scale."""
    choices: list[Any] = []
    """Values, instead of a range."""

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
    """The model's name in its manifest."""
    description: str = ""
    licence: str = ""
    data: DataRecipe
    features: FeatureSettings
    model: ModelRecipe = CrnnRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    fit: FitRecipe = FitRecipe()
    decision: DecisionDefaults = DecisionDefaults()
    then: list[dict[Literal["data", "model", "augment", "fit", "decision"], dict[str, Any]]] = []
    """`[[then]]`: further stages, each starting from the previous one; their tables hold changes.

    In `model` only the dropout may change: the weights, and so their shapes, stay the same.
    """
    search: dict[str, SearchRange] = {}
    """`[search]`: ranges of settings by keys such as `"fit.learning_rate"`."""

    def __post_init__(self) -> None:
        if self.features.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(
                f"features.sample_rate_hz must be {SAMPLE_RATE_HZ}, as every clip is read at; "
                f"received {self.features.sample_rate_hz}"
            )
        if isinstance(self.model, WindowRecipe):
            self._check_window_model(self.model)
        if isinstance(self.model, EmbeddingRecipe):
            self._check_embedding()
        self._check_training()

    @property
    def labels(self) -> list[str]:
        """Labels in the order of the model's outputs: silence, unknown, then the keywords."""
        return [SILENCE, UNKNOWN, *self.data.keywords]

    def stages(self) -> list["Recipe"]:
        """Return the recipe of each stage, first to last; none of them has stages of its own."""
        recipes = [msgspec.structs.replace(self, then=[])]
        for stage in self.then:
            tables = msgspec.to_builtins(recipes[-1])
            for name, changes in stage.items():
                tables[name] |= changes
            if set(stage.get("model", {})) - {"dropout"}:
                raise msgspec.ValidationError(
                    f"`model` in `[[then]]` must change `dropout` alone; received "
                    f"{', '.join(stage['model'])}"
                )
            recipes.append(msgspec.convert(tables, Recipe))
        return recipes

    def _check_window_model(self, model: WindowRecipe) -> None:
        if self.fit.quantize_aware:
            raise ValueError(
                f"fit.quantize_aware must stay false for {model.architecture}: only step models "
                f"can be trained so"
            )
        if self.fit.frozen_layers:
            raise ValueError(
                f"fit.frozen_layers must stay 0 for {model.architecture}: only the layers of step "
                f"models are counted"
            )
        if isinstance(model, DeepCnnRecipe) and len(self.data.keywords) != 1:
            raise ValueError(
                f"deep_cnn must have one keyword; received {len(self.data.keywords)} in data"
            )

    def _check_embedding(self) -> None:
        changed = [
            key
            for key in FeatureSettings.__struct_fields__
            if getattr(self.features, key) != getattr(EMBEDDING_FEATURES, key)
        ]
        if changed:
            raise ValueError(
                f"features must be those of commands.toml for speech_embedding, whose "
                f"weights are for them; received another {', '.join(changed)}"
            )

    def _check_training(self) -> None:
        if self.fit.pooled_outputs % 2 == 0:
            raise ValueError(f"fit.pooled_outputs must be odd; received {self.fit.pooled_outputs}")
        if self.augment.clip_share and self.fit.loss != "max_pooling":
            raise ValueError(
                f"augment.clip_share must stay 0 unless fit.loss is max_pooling: other losses "
                f"would require the word at every output; received {self.fit.loss}"
            )
        if self.augment.domain == "bands" and not _adds_up(self.features):
            raise ValueError(
                "augment.domain may be `bands` for natural logarithms of power alone: features "
                "with spectrum `power`, log_base `e`, and without log_addend, log_offset and "
                "normalization"
            )
        if self.fit.quantize_aware and self.fit.precision.startswith("mixed"):
            raise ValueError(
                f"fit.precision must be float32 or auto with fit.quantize_aware; received "
                f"{self.fit.precision}"
            )


def _adds_up(features: FeatureSettings) -> bool:
    """Return whether frames of a sum of sounds follow from the frames of the sounds."""
    plain = not features.log_addend and not features.log_offset and features.log_base == "e"
    return plain and features.spectrum == "power" and features.normalization == "none"


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not TOML, or breaks a rule; the message names the key.
    """
    try:
        recipe = msgspec.convert(_tables(path), Recipe)
        recipe.stages()
    except OSError as error:
        raise ConfigError(
            f"The recipe must be a readable file. Received: {path} ({error.strerror}). "
            f"Give its path with --config; bundled ones are in train/kws_train/recipes/."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be TOML. Received: {error}. Correct that line.") from error
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path} breaks a rule of recipes. Received: {error}.{_nearest(str(error))} "
            f"docs/training.md lists every key."
        ) from error
    return recipe


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe with all its values; `load_recipe` returns an equal one."""
    path.write_text(tomli_w.dumps(_set_values(msgspec.to_builtins(recipe))), encoding="utf-8")


def _set_values(value: Any) -> Any:
    """Remove None, which TOML cannot represent."""
    if isinstance(value, dict):
        return {key: _set_values(one) for key, one in value.items() if one is not None}
    return [_set_values(one) for one in value] if isinstance(value, list | tuple) else value


def _tables(path: Path, *, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a recipe's tables, merged over those of its `base`, a recipe in the same folder."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    if isinstance(model := tables.get("model"), dict):
        model.setdefault("architecture", "crnn")
    if not isinstance(base := tables.pop("base", None), str):
        return tables
    beside = path.with_name(Path(base).name)
    if not beside.is_file() or beside in (*above, path):
        raise msgspec.ValidationError(
            f"`base` must be another recipe in the same folder; received `{base}`"
        )
    merged = _tables(beside, above=(*above, path))
    for key, value in tables.items():
        if key != "model" and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] |= value
        else:
            merged[key] = value
    return merged


def _nearest(message: str) -> str:
    tables = (
        Recipe,
        DataRecipe,
        WordCorpus,
        SpeechCorpus,
        *MODEL_RECIPES.values(),
        AugmentRecipe,
        FitRecipe,
        FeatureSettings,
        DecisionDefaults,
        SearchRange,
    )
    known = [key for table in tables for key in table.__struct_fields__]
    if key := message.partition("unknown field `")[2].partition("`")[0]:
        return did_you_mean(key, known)
    if message.endswith("`$.model.architecture`"):
        return did_you_mean(message.split("'")[1], MODEL_RECIPES)
    return ""
