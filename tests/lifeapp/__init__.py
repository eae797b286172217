"""An app whose observed table goes through everything that migrations do to tables in the life of a project."""
