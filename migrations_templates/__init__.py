"""Templates of the migrations that ``manage.py djcrf_pg makemigrations`` writes.

The folder lies at the top of the repository, so that its files can be read and reviewed as what they are, and
is imported as ``djcrf_pg.migrations_templates``.
"""
