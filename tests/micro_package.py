"""What pymicro-wakeword makes of a model, to compare kws with."""

import numpy as np


def detected_by_package(samples, path):
    """Return probabilities, and the ends of detections by the rule of kws."""
    from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures

    features, model = MicroWakeWordFeatures(), MicroWakeWord.from_config(path)
    probabilities, ends_s, was_above = [], [], False
    for n, frame in enumerate(features.process_streaming(samples.tobytes()), start=1):
        is_above = bool(model.process_streaming(frame))
        if n % model.stride == 0:
            probabilities.append(model._probabilities[-1])
            if is_above and not was_above:
                ends_s.append(round(n * 0.01 + 0.02, 3))
            was_above = is_above
    return np.array(probabilities, np.float32), ends_s
