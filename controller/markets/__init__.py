"""Prices and values: feeds, ages, sane bounds."""
