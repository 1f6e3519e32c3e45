"""Listening for months: supervised sources, several models, sinks that cannot delay the audio.

- `service`: puts all together; signals, reload, the processing loop.
- `ear`: one supervised source: its recorder, stalls, back-off, and its `backlog`.
- `recorder`: the process that records, as the daemon sees it; `capture` is what runs in it.
- `listener`: one model on one source.
- `outlet`: a bounded queue and a thread before each sink, `log_outlet` before the log.
- `notify`: what systemd is told.
"""
