"""A chain of models; before Django 6.1 the cascade is Django's."""

from django.db import models

DB_CASCADE = getattr(models, "DB_CASCADE", models.CASCADE)
DB_SET_NULL = getattr(models, "DB_SET_NULL", models.SET_NULL)


class Author(models.Model):
    """The one that is deleted."""

    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Book(models.Model):
    """Goes with its author."""

    author = models.ForeignKey(Author, DB_CASCADE, related_name="books")

    def __str__(self) -> str:
        return f"book {self.pk}"


class Page(models.Model):
    """Goes with its book."""

    book = models.ForeignKey(Book, DB_CASCADE, related_name="pages")

    def __str__(self) -> str:
        return f"page {self.pk}"


class Loan(models.Model):
    """Stays without its book."""

    book = models.ForeignKey(Book, DB_SET_NULL, null=True, related_name="loans")

    def __str__(self) -> str:
        return f"loan {self.pk}"
