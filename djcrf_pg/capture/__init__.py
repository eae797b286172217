"""Triggers: which tables want them, which have them, and how the one becomes the other."""
