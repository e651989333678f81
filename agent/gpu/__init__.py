"""GPUs: NVML behind one thread, pools over it."""
