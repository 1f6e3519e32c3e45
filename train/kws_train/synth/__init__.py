"""Synthetic speech: phrases, confusable negatives, voices, and quality checks of the clips.

- `synthesize`: write clips of phrases, the entry point.
- `synth_report`: counts of clips of a synthesis.
- `lines`: random voice, speed, pitch and punctuation of a clip.
- `clip_cache`: cache of synthesised clips and their transcripts.
- `clip_checks`: quality checks of synthetic clips.
- `phrases`: text normalisation of phrases.
- `phrase_check`: suitability of a phrase as a keyword.
- `negatives`: confusable phrases to train against.
- `lexicon`: English pronunciations and word probabilities.
- `phonemes`: distances between pronunciations.
- `splice`: clips of a word spliced from recordings of other words.
- `voices`: text-to-speech engines.
"""
