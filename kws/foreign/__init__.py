"""Models of other tools: a manifest made from the file itself and what lies beside it.

- `microwakeword`: networks of ESPHome devices, on frames of the micro frontend
- `openwakeword`: heads of openWakeWord on the bundled speech embedding

A function of each module takes a file and its bytes, and returns None for what is not of its
format. `kws.model_file` asks them in turn; nothing else knows whose a model is.
"""
