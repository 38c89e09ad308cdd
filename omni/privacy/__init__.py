"""Whose data is where, and what is done about it."""
