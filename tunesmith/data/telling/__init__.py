"""What became of the rows, and what they amount to."""
