"""Sites that do not exist: wire-level miners, GPUs, meters, grids; the demo and the backtest."""
