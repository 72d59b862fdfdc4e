"""Training, from the options to the model.  Importing any of it hushes libraries first, as the models room does."""

import tunesmith.models  # noqa: F401
