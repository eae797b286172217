"""From what bodies show of related rows to the tables that are watched for it.

A step of a path is a relation from one model to the next. What happens there tells which rows of the former it is
about: a row behind a foreign key by the value that the key refers to, a row with a foreign key by the value of that, a
join row by its side of the owner. From these the path is followed back to the observed model by a query
(:mod:`djcrf_pg.routing.related`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.db import router
from django.db.models import ForeignKey, ManyToManyField, ManyToManyRel, ManyToOneRel, Model

from djcrf_pg.exceptions import ObserverError
from djcrf_pg.observer.paths import Path, Shown, relation_of, ways
from djcrf_pg.registry import Watch, family_of, lives_on, own_columns

#: The relations that can be followed: foreign keys, what they are from the other side, and those with a join table.
_KINDS = (ForeignKey, ManyToOneRel, ManyToManyField | ManyToManyRel)


def named(model: type[Model], names: Iterable[str], shown: Mapping[Path, Shown]) -> dict[Path, Shown]:
    """What is shown of the rows at the ends of some paths; where that is not known, whatever they have.

    Args:
        model: Where the paths begin.
        names: The paths, with two underscores between relations: ``"product__tags"``.
        shown: What is known, with that of ``()`` for the model itself.

    Raises:
        ObserverError: A name is that of no relation.
    """
    found: dict[Path, Shown] = {}
    for name in names:
        path = tuple(name.split("__"))
        if (there := _lost_at(model, path)) is not None:
            here, step = there
            has = ", ".join(_relations(here)) or "none"
            raise ObserverError(
                f"related has {name!r}, and {here._meta.label} has no relation {step!r} to a model; it has {has}."
            )
        found[path] = shown_at(shown, path)
    return found


def shown_at(shown: Mapping[Path, Shown], path: Path) -> Shown:
    """What counts of the rows at the end of a path that somebody names.

    They are named for the code of a serializer, which may show whatever they have: that of any of those on the way.

    Args:
        shown: What serializers are known to show.
        path: The relations that lead there.
    """
    has_code = any(shown.get(path[:end]) is None for end in range(len(path)))
    return None if has_code else shown.get(path)


def is_path(model: type[Model], path: Path) -> bool:
    """Whether a path is one of relations.

    Args:
        model: Where it begins.
        path: The attributes.
    """
    return _lost_at(model, path) is None


def _lost_at(model: type[Model], path: Path) -> tuple[type[Model], str] | None:
    """Where a path ends that is not one of relations: the model, and the attribute that is none of it."""
    here = model
    for place, name in enumerate(path):
        relation = relation_of(here, name)
        if relation is None or (relation.related_model is None and place < len(path) - 1):
            return here, name
        here = relation.related_model
    return None


def watches_of(model: type[Model], shown: Mapping[Path, Shown]) -> tuple[Watch, ...]:
    """What is watched so that no row is missed that a body shows something of.

    Args:
        model: The observed model.
        shown: What its bodies show of related rows, by the relations that lead there.

    Raises:
        ObserverError: A relation leads to another database, or to rows that no column names.
    """
    watches: dict[Watch, None] = {}
    for path in dict.fromkeys(way for whole in shown for way in ways(whole)):
        here, prefix = model, ""
        for name in path[:-1]:
            relation = relation_of(here, name)
            here, prefix = relation.related_model, f"{prefix}{relation.name}__"
        following = {other[len(path)] for other in shown if len(other) > len(path) and other[: len(path)] == path}
        fields = shown.get(path, frozenset())
        counted = None if fields is None else fields | following
        watches |= dict.fromkeys(_step(model, here, path, prefix, counted))
    return tuple(watches)


def _step(model: type[Model], here: type[Model], path: Path, prefix: str, fields: Shown) -> Iterator[Watch]:
    """The watches of the last relation of a path.

    Args:
        model: The observed model.
        here: The model that has the relation.
        path: The path.
        prefix: What leads to ``here`` in a query.
        fields: What counts of the rows behind it.
    """
    name = "__".join(path)
    relation: Any = relation_of(here, path[-1])
    there: type[Model] = relation.related_model
    is_forward, is_reverse, is_join = (isinstance(relation, kind) for kind in _KINDS)
    if not (is_forward or is_reverse or is_join):
        raise ObserverError(
            f"related cannot follow {name!r}: {here._meta.label}.{path[-1]} is a {type(relation).__name__}, and not a "
            f"foreign key or a many-to-many field or the reverse of one. Name the relations to follow without it: "
            f"related=[…]."
        )
    alias = router.db_for_write(model)
    if not lives_on(there, alias):
        raise ObserverError(
            f"related cannot follow {name!r}: {there._meta.label} is not in database {alias!r}, where "
            f"{model._meta.label} is. Name the relations to follow without it: related=[…]."
        )
    behind = f"{prefix}{relation.name}__"
    key: Any = None  # what refers from one to the other, as a field of there
    may_dangle = False
    if is_forward:
        key, may_dangle = relation.target_field, not relation.db_constraint
    elif is_reverse:
        key = relation.field
    else:
        yield _of_join(here, relation, name, prefix)
        key = _sides(relation)[1].target_field
        may_dangle = not _sides(relation)[1].db_constraint
    for part in family_of(there):
        own = own_columns(part).values()
        counted = None if fields is None else fields & {field.name for field in own}
        field: Any = key if key in own else part._meta.pk
        lookup, comes_and_goes = f"{behind}{field.name}", False
        if field is key and not is_reverse:
            # Without a constraint the row may come after those that refer to it, and go before them. And where these
            # refer to it by something else than its key, that is as good as another row when it changes.
            comes_and_goes = may_dangle or not key.primary_key
        elif field is key:
            lookup, comes_and_goes = f"{prefix}{key.target_field.name}", True
            counted = None if counted is None else counted | {key.name}
        if counted != frozenset() or comes_and_goes:
            yield Watch(name, part, part._meta.label, field.attname, lookup, counted, comes_and_goes)


def _of_join(here: type[Model], relation: Any, name: str, prefix: str) -> Watch:
    """The watch of the join table of a many-to-many relation."""
    field: Any = relation.field if isinstance(relation, ManyToManyRel) else relation
    owner, other = _sides(relation)
    through = field.remote_field.through
    entry = through._meta.label
    if through._meta.auto_created:
        entry = f"{field.model._meta.label}.{field.name}"
    lookup = f"{prefix}{owner.target_field.name}"
    sides = frozenset({owner.name, other.name})
    return Watch(name, owner.model, entry, owner.attname, lookup, sides, comes_and_goes=True)


def _sides(relation: Any) -> tuple[Any, Any]:
    """The foreign keys of the join table of a many-to-many relation: to the owner, and to the rows behind it."""
    is_reverse = isinstance(relation, ManyToManyRel)
    field = relation.field if is_reverse else relation
    names = field.m2m_field_name(), field.m2m_reverse_field_name()
    owner, other = (field.remote_field.through._meta.get_field(name) for name in names)
    return (other, owner) if is_reverse else (owner, other)


def _relations(model: type[Model]) -> list[str]:
    """The attributes of a model that are relations."""
    names = {field.name for field in model._meta.get_fields() if field.is_relation}
    names |= {accessor for relation in model._meta.related_objects if (accessor := relation.get_accessor_name())}
    return sorted(name for name in names if relation_of(model, name) is not None)
