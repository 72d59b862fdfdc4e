"""Rows that are read while training."""
