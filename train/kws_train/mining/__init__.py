"""Mining: find clips that a model is unsure of in recordings, label them by ear, train on them.

- `cli`: the command `kws mine`.
- `scan`: run a model over recordings and keep the peaks of its scores.
- `peaks`: peaks of smoothed posteriors.
- `select`: active learning, which peaks to label first.
- `collect`: scan, select and cut the candidates' clips.
- `training_clips`: clips to train on, of labelled candidates.
- `word_clips`: clips cut to labelled words.
- `labeller`: labelling by ear in a terminal.
- `clip_player`: playback of clips by an external program.
- `finetune`: the recipe of a fine-tuning on labelled clips.
"""
