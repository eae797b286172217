"""django-model-utils and django-dirtyfields, and trackers of a project's own: they read fields of each new instance."""
