"""Child processes of the tests' own process."""

import multiprocessing


def forked_children():
    """Return the children that this process forked; joblib's workers of earlier tests are not."""
    fork = multiprocessing.context.ForkProcess
    return [child for child in multiprocessing.active_children() if isinstance(child, fork)]
