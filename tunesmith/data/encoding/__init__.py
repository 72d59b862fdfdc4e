"""Conversations -> ids and what is trained."""
