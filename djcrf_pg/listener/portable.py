"""An instance as JSON data, for the handlers that take ``old_instance`` in another process.

The fields' own text forms, which Django's serializers use, carry every value there and back.
"""

from typing import Any

from django.db.models import Model

from djcrf_pg.instances import make


def dump(instance: Model) -> dict[str, Any]:
    """The loaded fields of an instance, by attribute; deferred ones are left out."""
    return {
        field.attname: None if instance.__dict__[field.attname] is None else field.value_to_string(instance)
        for field in instance._meta.concrete_fields
        if field.attname in instance.__dict__
    }


def load(model: type[Model], alias: str, dumped: dict[str, Any]) -> Model:
    """Make the instance again; what was left out is deferred."""
    fields = [field for field in model._meta.concrete_fields if field.attname in dumped]
    values = {
        field.attname: None if dumped[field.attname] is None else field.to_python(dumped[field.attname])
        for field in fields
    }
    return make(model, alias, values)
