"""What pymicro-wakeword makes of a model, to compare kws with."""

import numpy as np


def detected_by_package(samples, path):
    """Return probabilities, and the ends of words by the rule of kws.

    A mean over a window rises so much later than the last of its outputs; kws takes that off.
    """
    from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures

    features, model = MicroWakeWordFeatures(), MicroWakeWord.from_config(path)
    late = (model.sliding_window_size - 1) * model.stride
    probabilities, ends_s, was_above = [], [], False
    for n, frame in enumerate(features.process_streaming(samples.tobytes()), start=1):
        is_above = bool(model.process_streaming(frame))
        if n % model.stride == 0:
            probabilities.append(model._probabilities[-1])
            if is_above and not was_above:
                ends_s.append(round((n - late) * 0.01 + 0.02, 3))
            was_above = is_above
    return np.array(probabilities, np.float32), ends_s
