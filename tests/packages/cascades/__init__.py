"""Deletes that the database cascades, as Django 6.1 declares them."""
