"""The workbench: data, scenes, layers, training and evaluation. Never imported by the device."""
