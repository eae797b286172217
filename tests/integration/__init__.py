"""Tests on a real PostgreSQL, in this process."""
