"""A run is a process with a folder: start it, claim its folder, find it again.  Never imports torch."""
