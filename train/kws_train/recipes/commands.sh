#!/bin/sh
# Train, export and calibrate a bundled model of commands: commands.sh NAME DATA RUN MODEL.tflite
# NAME is commands or commands-small. Resumes an interrupted training. Synthesize words first, see
# docs/training.md.
set -eu
name=$1 data=$2 run=$3 model=$4
recipe=$(dirname "$0")/$name.toml
case $name in
    commands) frames=8 ;;
    *) frames=4 ;;
esac
kws align "$data/librispeech" "$data/alignment.jsonl" --half first
[ -d "$data/spliced/off" ] || kws splice "$data/speech_commands" "$data/spliced" \
    --word off --part stop:AA --part left:F --most 700 --stretch 1 1.8
[ -d "$data/spliced/on" ] || kws splice "$data/speech_commands" "$data/spliced" \
    --word on --part stop:AA --part down:N --most 700 --stretch 1 1.8
kws train --config "$recipe" --data "$data" --out "$run"
kws export "$run" --out "$model" --frames "$frames" --temperature 1.5
kws eval calibrate "$model" --config "$recipe" --data "$data"
