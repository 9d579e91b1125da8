"""The parts of data_feeding.py: one module per way to feed a model, each run in a process of its own."""
