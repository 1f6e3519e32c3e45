"""What the commands of `kws` do, one module each.

- `listen`: `kws listen`: one source through a spotter to the sinks.
- `listen_settings`: its settings: kws.toml, overridden by the command line.
- `demo`: `kws demo`: the bundled recordings, explained.
- `info`: `kws info`: a model's manifest in plain words.
- `doctor`: `kws doctor`: checks of the installation, each with its fix.
- `config_report`: `kws config`: checks, origins and the JSON Schema of a kws.toml.
- `bench`: `kws bench`: CPU by stage, memory, start-up time.
- `probe`: measurements in a fresh process, for `bench` and `doctor`.
- `machine`: names of this machine and its interpreter.
- `record`: `kws record`: takes of a word, cut and checked.
- `enroll`: `kws enroll`: a word from a few recordings, without training.
- `bundled_data`: files of numbers that come with kws.
- `enrolment_takes`: recordings of a word, read, checked and as vectors.
- `speaker_data`: statistics of many speakers, and the check of one.
- `enrolment_data`: the network and the background speech that it works with.
- `ui_settings`: the settings of `kws ui`.
- `calibrate_room`: `kws calibrate`: thresholds and gain for a room.
"""
