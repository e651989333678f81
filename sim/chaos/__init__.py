"""Faults on purpose: a real controller, complete agents on simulated physics, and everything that can go wrong between."""
