"""The oracle: what a client folded out of events equals what the database says, whatever was done to either.

``python -m tests.oracle`` runs it, with processes and a PostgreSQL server of its own; see `tests.oracle.__main__`.
"""
