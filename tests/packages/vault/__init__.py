"""django-pgcrypto-fields, and fields of a project's own whose SELECT is SQL: they are not stored as they are read."""
