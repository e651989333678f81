"""The way out: spool, session, reports."""
