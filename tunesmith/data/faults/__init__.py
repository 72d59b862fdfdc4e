"""What is wrong with rows: found, told, mended."""
