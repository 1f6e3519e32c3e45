"""The workbench: data, scenes, networks, training and evaluation. Never imported by the runtime.

- `data`: corpora of clips and of continuous speech.
- `scenes`: continuous audio mixed from clips, speech and noise, with targets, for training.
- `networks`: layers, blocks and architectures.
- `fit`: training, checkpoints, losses and search.
- `synth`: synthetic clips of words, and their voices.
- `evaluate`: scores on clips and on streams, calibration, plots, reports.
- `mining`: false alarms and misses in recordings, labelled and trained on (`kws mine`).
- `own_word`: a model of one's own phrase (`kws new`).
- `recipes`: the recipes that come with kws.
- `atomic`: atomic file writes.
- `cache_folder`: folders of what is kept for other runs.
- `cli`: commands of the workbench.
- `optional`: optional libraries, imported on first use.
- `parallel`: parallel map over the items of a corpus.
- `recipe`: recipes: the settings of a training, read from TOML and validated.
"""

import os

# TensorFlow's C++ log speaks to its developers; set the variable to read it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Without AVX-512 VNNI, TensorFlow leaves out oneDNN, and with it convolutions of uneven strides.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
