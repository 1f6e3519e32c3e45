"""From trained weights to model files.

- `cli`: the command `kws export`.
- `bundle`: export a run folder as one model file with its manifest.
- `head`: export a head on the speech embedding.
- `openwakeword`: export of a head for programs on openWakeWord.
- `microwakeword`: export of a network for ESPHome's devices, with its JSON.
- `tensor_arena`: the memory that a microcontroller needs for a network.
- `whole`: a head with its speech embedding in one file.
- `enrolment`: the file of a network and background speech that `kws enroll` works with.
- `speakers`: statistics of many speakers, for `kws enroll --only-me`.
- `step`: the trained model as a TensorFlow function of one call.
- `quantize`: conversion to TensorFlow Lite in int8, 16-bit activations or float32.
- `compact`: the same flatbuffer in fewer bytes.
- `speech_embedding`: the bundled speech embedding, from its published weights.
- `quantize_embedding`: quantisation-aware training of the speech embedding.
- `verify`: comparison of a model file with the trained model, in a subprocess.
"""
