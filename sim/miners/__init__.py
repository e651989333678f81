"""Miners that answer on real sockets."""
