"""What a run says of itself: on a screen, in its folder, to services."""
