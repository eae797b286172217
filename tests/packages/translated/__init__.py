"""django-parler: a part of a model's fields is in a table of translations."""
