#!/bin/sh
# Train and export the bundled model `commands`: commands.sh DATA RUN MODEL.tflite
# Resumes an interrupted training. Synthesize words first, see docs/training.md.
set -eu
data=$1 run=$2 model=$3
recipe=$(dirname "$0")/commands.toml
kws align "$data/librispeech" "$data/alignment.jsonl" --half first
[ -d "$data/spliced/off" ] || kws splice "$data/speech_commands" "$data/spliced" \
    --word off --part stop:AA --part left:F --most 700 --stretch 1 1.8
[ -d "$data/spliced/on" ] || kws splice "$data/speech_commands" "$data/spliced" \
    --word on --part stop:AA --part down:N --most 700 --stretch 1 1.8
kws train --config "$recipe" --data "$data" --out "$run"
kws export "$run" --out "$model" --frames 4 --temperature 1.5
kws eval calibrate "$model" --config "$recipe" --data "$data"
