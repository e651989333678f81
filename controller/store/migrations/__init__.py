"""Alembic's revisions, run by the controller itself at start: no alembic.ini, no extra command."""
