"""Samples -> batches, in their order."""
