"""Models with every type of column, for the property that an image becomes what the ORM would have loaded."""
