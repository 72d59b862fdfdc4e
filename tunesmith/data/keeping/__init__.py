"""Many rows prepared at once and kept on disk."""
