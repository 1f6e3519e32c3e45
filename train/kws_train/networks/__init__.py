"""Networks: streaming layers, the architectures made of them, fake quantisation, weight transfer.

- `streaming`: the interface of layers that run over sequences and in steps.
- `layers`: normalisation, reshaping, averaging, classification.
- `convolution`: causal convolution with batch normalisation and activation.
- `recurrent`: GRU and LSTM.
- `blocks`: layers in turn, residual and broadcasted residual blocks, sub-spectral normalisation.
- `spotting`: the model around a stack of streaming layers.
- `architectures`: streaming architectures by name.
- `speech_embedding`: the whole speech embedding, for training, with the published weights.
- `embedding_head`: the head that tells keywords apart in vectors of the speech embedding.
- `micro_network`: a small network for microcontrollers, on frames of the micro frontend.
- `window_models`: architectures over a window of frames, and the model that slides the window.
- `fake_quant`: quantisation ranges and rounding for quantisation-aware training.
- `transfer`: initial weights from another model, also a narrower one or one of other labels.
- `keras_backend`: determinism, precision and other parts that depend on Keras's backend.
"""
