"""tunesmith fine-tunes language models.  Importing it costs nothing; every room is imported by the one that needs it."""

__version__ = "0.1.0"
