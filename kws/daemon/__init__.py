"""The daemon: several sources and models, restarts of failed sources, reload on SIGHUP.

- `service`: the processing loop, signals, and the reload.
- `loaded_config`: a configuration with its models open and its hooks checked.
- `source_supervisor`: one audio source; restarts its capture process when it stalls or fails.
- `capture_process`: the capture process as the daemon controls it.
- `capture`: the program that runs in the capture process.
- `backlog`: a bounded queue of audio that waits to be processed.
- `listeners`: one source with the models that run on it.
- `delivery`: delivery of events to hooks and other sinks.
- `sink_queue`: a bounded queue and worker thread per sink.
- `log_queue`: a bounded queue and worker thread for the log.
- `init`: what PID 1 of a container must do: reap orphans, forward signals.
- `systemd`: notifications to systemd by sd_notify.
- `monitoring`: the snapshot, status socket and metrics of a daemon.
- `snapshot`: the state of the daemon at one time.
- `status_socket`: the path and the creation of the status socket.
- `status_server`: the server at the status socket.
- `status_client`: the client of the status socket, for `kws status` and `kws tail`.
- `status_view`: tables of a snapshot for the terminal.
- `metrics`: the metrics of a snapshot, for Prometheus.
- `metrics_server`: the HTTP server of the metrics, on the loopback.
- `wyoming_service`: the Wyoming service of the daemon.
- `mqtt_service`: detections and sensors to an MQTT broker, requests to mute from it.
- `muting`: which sources are muted, and by what.
- `day_total`: the total of what was counted in the last 24 hours.
- `ui_service`: the page of the daemon in the browser.
- `page_state`: the state of the daemon as pages show it.
"""
