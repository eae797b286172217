"""A Django application with real models, migrations and consumers."""
