"""Scenes: continuous audio mixed from clips, speech and noise, with targets, for training.

- `acoustics`: acoustic conditions of scenes: rooms, babble, noise, microphones and codecs.
- `augment`: transforms of waveforms, of features and of batches.
- `band_acoustics`: acoustic conditions of scenes that are added up of bands.
- `bands`: a corpus as bands of power, computed once and kept on disk.
- `ctc_scenes`: utterances of several words, with the sequence of words as the target.
- `rooms`: room impulse responses by the image-source method.
- `scenes`: scenes with a target for every output of the model.
- `targets`: the labels that are right at each output of the model.
- `word_draw`: random draws of isolated words, from clips and from continuous speech.
- `word_scenes`: scenes around one word and disturbed utterances, as vectors of an embedding.
"""
