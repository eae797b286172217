"""django-taggit, django-sortedm2m and generic relations: not every relation is a ManyToManyField."""
