"""A GPU node off, and on again, when a person asks for it: held, empty, shut down, proven by its wall power."""
