"""django-polymorphic: a query gives instances of other classes than its model's."""
