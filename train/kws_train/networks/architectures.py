"""Streaming architectures, each a function from settings to layers.

Architectures over windows are in `kws_train.networks.window_models`; `build` builds either kind.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from kws_train.networks.blocks import Broadcast, Residual
from kws_train.networks.convolution import Causal
from kws_train.networks.embedding_head import N_CONTEXT_VECTORS, head_layers
from kws_train.networks.layers import Average, Classify, Flatten, Normalize, Stack
from kws_train.networks.recurrent import GRU, LSTM
from kws_train.networks.speech_embedding import N_CONTEXT, N_VALUES, speech_embedding
from kws_train.networks.spotting import Spotting
from kws_train.networks.streaming import Streaming
from kws_train.networks.window_models import Windowed, build_window
from kws_train.recipe import (
    BcResnetRecipe,
    CrnnRecipe,
    DsCnnRecipe,
    EmbeddingRecipe,
    GruRecipe,
    LstmRecipe,
    ModelRecipe,
    TcResnetRecipe,
    WindowRecipe,
)

__all__ = ["ARCHITECTURES", "Network", "build", "context_frames", "time_stride"]


Network: TypeAlias = Spotting | Windowed


def time_stride(recipe: ModelRecipe) -> int:
    """Return the number of frames per output of an architecture."""
    if isinstance(recipe, WindowRecipe):
        return recipe.hop_frames
    return math.prod(layer.time_stride for layer in ARCHITECTURES[recipe.architecture](recipe))


def context_frames(recipe: ModelRecipe) -> int:
    """Return the frames that an output depends on where the gate's own pre-roll is less, else 0."""
    if not isinstance(recipe, EmbeddingRecipe):
        return 0
    return N_CONTEXT + (N_CONTEXT_VECTORS - 1) * time_stride(recipe)


def build(
    recipe: ModelRecipe,
    *,
    n_labels: int,
    mean: Sequence[float],
    std: Sequence[float],
    quantize_aware: bool = False,
) -> Network:
    """Build the architecture that a recipe names, for features of this mean and standard deviation.

    A streaming model can be quantisation-aware: it simulates int8, with ranges that are learned.
    """
    if isinstance(recipe, WindowRecipe):
        return build_window(recipe, n_labels=n_labels, mean=mean, std=std)
    layers = ARCHITECTURES[recipe.architecture](recipe)
    if not isinstance(recipe, EmbeddingRecipe):  # whose weights are for the features as they are
        layers = [Normalize(mean, std), *layers]
    model = Spotting([*layers, Classify(n_labels, dropout=recipe.dropout)])
    if quantize_aware:
        for layer in [one for one in model._flatten_layers() if isinstance(one, Streaming)]:
            layer.add_ranges()
    model.build((None, None, len(mean)))
    return model


def _crnn(recipe: CrnnRecipe) -> list[Streaming]:
    """Causal depthwise-separable CNN, then a GRU.

    The convolutions cover half a second, the GRU longer context. Two 2-D layers give tolerance to
    shifts in pitch and formants; the rest is 1-D over time.
    """
    front, middle, width = recipe.channels
    layers: list[Streaming] = [
        Causal(front, kernel=(2, 5), stride=(2, 2)),
        Causal(None, kernel=(3, 3), stride=(1, 2)),
        Causal(middle),
        Flatten(),
        Causal(width),
    ]
    layers += [
        Residual(
            [
                Causal(None, kernel=(recipe.kernel_frames, 1), activation="linear"),
                Causal(width, activation="linear"),
            ]
        )
        for _ in range(recipe.n_blocks)
    ]
    return [*layers, GRU(recipe.gru_units, dropout=recipe.dropout)]


def _gru(recipe: GruRecipe) -> list[Streaming]:
    """Stacked GRUs on stacked frames."""
    return [
        Stack(recipe.stack_frames),
        *(GRU(units, dropout=recipe.dropout) for units in recipe.units),
    ]


def _lstm(recipe: LstmRecipe) -> list[Streaming]:
    """Stacked LSTMs on stacked frames."""
    return [
        Stack(recipe.stack_frames),
        *(LSTM(units, dropout=recipe.dropout) for units in recipe.units),
    ]


def _ds_cnn(recipe: DsCnnRecipe) -> list[Streaming]:
    """DS-CNN (Zhang et al. 2017, *Hello Edge*, section 4.5), with causal kernels.

    A 10x4 convolution of stride 2, then blocks of a 3x3 depthwise and a 1x1 convolution; the global
    average becomes a running one.
    """
    blocks: list[Streaming] = []
    for _ in range(recipe.n_blocks):
        blocks += [Causal(None, kernel=(3, 3)), Causal(recipe.channels)]
    first = Causal(recipe.channels, kernel=(10, 4), stride=(2, 2))
    return [first, *blocks, Average(recipe.pool_outputs)]


def _tc_resnet(recipe: TcResnetRecipe) -> list[Streaming]:
    """TC-ResNet (Choi et al. 2019, figure 2), causal: bands are channels, kernels go over time.

    Each residual block is two convolutions, the first of stride 2, with a convolution of the same
    stride, over no more than the two frames it strides, as its shortcut; the global average becomes
    a running one.
    """
    first, *widths = recipe.channels
    kernel = (recipe.kernel_frames, 1)
    blocks = [
        Residual(
            [
                Causal(width, kernel=kernel, stride=(2, 1)),
                Causal(width, kernel=kernel, activation="linear"),
            ],
            shortcut=Causal(width, kernel=(2, 1), stride=(2, 1)),
        )
        for width in widths
    ]
    return [Flatten(), Causal(first, kernel=(3, 1)), *blocks, Average(recipe.pool_outputs)]


def _bc_resnet(recipe: BcResnetRecipe) -> list[Streaming]:
    """BC-ResNet (Kim et al. 2021, table 1), causal in time.

    Four stages of broadcasted residual blocks with dilations 1, 2, 4 and 8, of which the second and
    third halve the bands; then a depthwise 5x5 and a 1x1 convolution. The mean over bands and the
    running one over time come last.
    """
    front, *widths = (
        max(recipe.sub_bands, round(recipe.width * n)) for n in (16, 8, 12, 16, 20, 32)
    )
    layers: list[Streaming] = [Causal(front, kernel=(5, 5), stride=(recipe.stride_frames, 2))]
    stages = zip(widths[:4], recipe.n_blocks, (1, 2, 2, 1), (1, 2, 4, 8), strict=True)
    for channels, n_blocks, band_stride, dilation in stages:
        for i in range(n_blocks):
            block = Broadcast(
                channels,
                band_stride=band_stride if i == 0 else 1,
                dilation=dilation,
                n_groups=recipe.sub_bands,
                transition=i == 0,
                dropout=recipe.dropout,
            )
            layers.append(block)
    layers += [Causal(None, kernel=(5, 5)), Causal(widths[4])]
    return [*layers, Average(recipe.pool_outputs)]


def _speech_embedding(recipe: EmbeddingRecipe) -> list[Streaming]:
    """Google's speech embedding (Lin et al. 2020) with its published weights, and a head."""
    head = head_layers(size=N_VALUES, channels=recipe.channels, dropout=recipe.dropout)
    return [*speech_embedding(standardize=True), *head]


ARCHITECTURES: dict[str, Callable[[Any], list[Streaming]]] = {
    "crnn": _crnn,
    "ctc": _crnn,
    "gru": _gru,
    "lstm": _lstm,
    "ds_cnn": _ds_cnn,
    "tc_resnet": _tc_resnet,
    "bc_resnet": _bc_resnet,
    "speech_embedding": _speech_embedding,
}
"""Step architectures by their name in recipes."""
