"""The folder of `kws mine`, as the labeller in the browser and the workbench use it.

- `folder`: candidates, their clips and labels.
- `clip_file`: which part of a recording a clip is, and how it is written.
- `label_log`: the log of labels.
- `word_embedding`: embeddings of words, to compare how they sound.
- `recorded`: candidates from the clips that the daemon has recorded.
"""
