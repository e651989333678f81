"""A stand-in libnvidia-ml.so.1: its source, its builder and its state file."""
