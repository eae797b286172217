"""django-safedelete: managers that hide rows, also the one that Django loads related rows with."""
