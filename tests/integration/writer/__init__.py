"""Tests of what a writer says of itself: context and suspend."""
