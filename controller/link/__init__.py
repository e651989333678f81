"""Agents' sessions: the SessionService."""
