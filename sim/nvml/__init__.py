"""A stand-in for libnvidia-ml.so.1, its state file and its builder."""
