"""django-simple-history: receivers that are connected with weak=False."""
