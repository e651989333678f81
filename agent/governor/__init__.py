"""Holds a site to its plan: pure decisions, level-triggered doing, the lease."""
