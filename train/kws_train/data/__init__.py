"""Corpora of clips and of continuous speech: files, splits, samples, and word times.

- `align`: word times for continuous speech, by forced alignment with pocketsphinx.
- `audio_files`: list audio files; read them as 16 kHz mono int16.
- `corpus`: load one split of the corpora that a recipe names into memory.
- `front_ends`: what turns audio into vectors: the speech embedding, the micro frontend.
- `librispeech`: speakers and transcripts of corpora in LibriSpeech's layout.
- `speakers`: the files of each speaker, and which speakers are for what.
- `speech_span`: where in a clip its word is spoken, by energy.
- `splits`: which split a clip or an utterance belongs to, by hashes of names.
- `vector_cache`: vectors of a front end, computed once and kept on disk.
"""
