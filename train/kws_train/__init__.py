"""The workbench: data, scenes, layers, training and evaluation. Never imported by the device."""

import os

# TensorFlow's C++ log speaks to its developers; set the variable to read it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
