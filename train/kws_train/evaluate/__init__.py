"""Evaluation on clips and on continuous audio: scores, calibration, plots, reports.

- `build_stream`: labelled streams: keywords between sentences, in noise at a given SNR.
- `calibrate`: the calibration table of a model file: thresholds per false-alarm rate.
- `clips`: classification of isolated clips: accuracy, recall, confusion, reliability.
- `cost`: weights and multiply-accumulates of a model file.
- `det`: detection error trade-off: miss rate against false alarms per hour.
- `groups`: misses and false alarms by keyword, SNR, sex of the speakers, and other groups.
- `label_files`: label files of recordings, to evaluate on existing audio.
- `plots`: plots of scores and of trainings.
- `report`: report.html, one self-contained page on a trained model.
- `stream`: scores on streams: miss rates, false alarms, latency.
- `stream_options`: the streams that the options of `kws eval stream` describe.
- `stream_results`: posteriors of a model over streams, and their DET curves.
- `study_plots`: plots of a hyper-parameter search.
- `tables`: scores as plain-text tables.
- `traces`: smoothed posteriors over a stream, for detections at any threshold.
- `training_plots`: plots of a finished training in its run folder.
- `tuning_streams`: streams to calibrate on, of data that training left out.
- `worst_errors`: excerpts of the worst false alarms and misses.
"""
