"""`kws new`: from phrases, recordings or both to a model file, its thresholds and a report.

- `cli`: the command `kws new`.
- `pipeline`: the stages from a request to a model file, the entry point.
- `workspace`: the request, and the working folder of its intermediate results.
- `prepare`: preparation of all audio of a request.
- `recordings`: recordings of the phrases, cut and split.
- `word_vectors`: vectors to train heads and networks of microcontrollers on, tuning streams.
- `vector_network`: training of a network on these vectors.
- `head`: the head on the speech embedding: training, export.
- `fine_tuning`: the embedding and the head trained on together, where recordings can judge.
- `micro`: the network for ESPHome's devices: training, export, cut-off.
- `corpora`: speech, other words and noise, imported or generated.
- `recipe`: the training recipe of a request.
- `time_budget`: the recipe's number of scenes, from the speed of this machine.
- `pretrained`: the network that training starts from.
- `evaluation`: streams and clips that are held out for the evaluation.
- `figures`: the figures of a model.
- `people`: an estimate of people's misses, from those of synthetic voices.
- `verdict`: ready, for these speakers only or not usable, and what would help.
- `stages`: which stage of how many, and the time left.
"""
