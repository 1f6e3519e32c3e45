"""Voices of text-to-speech engines behind one interface.

Neural voices (`kokoro`, `piper`) are good to train on; flite and espeak-ng (`programs`) are
fallbacks.

- `engine`: the interface `VoiceEngine`, and what all engines share.
- `discover`: find and open the engines that are installed.
- `kokoro`: Kokoro-82M by `kokoro-onnx`.
- `piper`: Piper by `piper-tts`.
- `programs`: flite and espeak-ng, run as subprocesses.
- `accents`: random accents, as substitutions of phonemes.
- `onnx`: ONNX models opened with one thread.
"""
