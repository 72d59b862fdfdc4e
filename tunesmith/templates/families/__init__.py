"""Templates as data, one file per family.  A template's name is its `name`; the index page lists where each lies."""
