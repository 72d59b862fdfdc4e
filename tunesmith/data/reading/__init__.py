"""Names of datasets -> rows -> conversations, and which of them."""
