#!/bin/sh
# Train, export and calibrate a bundled model of commands: commands.sh NAME DATA RUN MODEL.tflite
# NAME is commands or commands-small. Resumes an interrupted training. Synthesize words first, see
# docs/training.md.
set -eu
name=$1 data=$2 run=$3 model=$4
recipe=$(dirname "$0")/$name.toml
case $name in
    commands) options= ;;
    *) options="--frames 4 --temperature 1.5" ;;
esac
kws align "$data/librispeech" "$data/alignment.jsonl" --half first
[ -d "$data/spliced/off" ] || kws splice "$data/speech_commands" "$data/spliced" \
    --word off --part stop:AA --part left:F --most 700 --stretch 1 1.8
[ -d "$data/spliced/on" ] || kws splice "$data/speech_commands" "$data/spliced" \
    --word on --part stop:AA --part down:N --most 700 --stretch 1 1.8
kws train --config "$recipe" --data "$data" --out "$run"
# shellcheck disable=SC2086  # several options, or none
kws export "$run" --out "$model" $options
kws eval calibrate "$model" --config "$recipe" --data "$data"
