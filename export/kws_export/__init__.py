"""From trained models to model files: the step, quantisation, the manifest, verification."""
