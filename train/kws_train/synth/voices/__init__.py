"""Synthetic voices behind one small interface, `kws_train.synth.voices.backend.Backend`.

Neural voices, which are worth training on, are `kokoro` and `piper`; the programs flite and
espeak-ng (`programs`) are there where nothing else is. `discover` finds out what this machine has.
"""
