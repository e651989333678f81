"""Slurm: one partition as a pool of AI work, over the command-line tools that every cluster has."""
