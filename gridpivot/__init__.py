"""The shared kernel: what the agent and the controller must agree on, and nothing that either decides alone."""

__version__ = "0.1.0"
