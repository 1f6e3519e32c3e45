"""The page in the browser: what is heard now, thresholds, recordings and their labels, takes.

- `host`: what a page needs of the process that spots keywords.
- `feed`: levels, posteriors and events, handed from the thread of the audio to that of the pages.
- `live_pages`: the open pages; each gets frames through a bounded queue of its own.
- `access`: who may use the page: token, Host, Origin, headers of every answer.
- `requests`: bodies of requests as settings, errors as answers.
- `folders`: the folders of takes, enrolled models, labels and runs.
- `clips`: the recorded clips of the daemon.
- `config_file`: thresholds in kws.toml, changed with comments and order kept.
- `tuning`: what thresholds mean, and their change.
- `labelling`: clips to listen to and label.
- `audio_input`: the browser's microphone, or a source of this machine.
- `takes`: takes of a word, and the model enrolled from them.
- `trial`: the trial of an enrolled model.
- `runs`: runs of `kws new`, their stages, figures and reports.
- `app`: the routes of the page.
- `server`: the server in a thread of its own.
"""
