"""One module a lever; `agent/ai/lever.py` says what a lever is."""
