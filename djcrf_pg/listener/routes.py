"""Which observers hear of a table: compiled from the registry, once for each change of it."""

import dataclasses
from collections.abc import Mapping

from django.db.models import Model

from djcrf_pg.changelog.net import Image, Key
from djcrf_pg.registry import Many2Many, Observed, own_columns, registry, through_of


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A join table behind a many-to-many field of an observed model.

    Attributes:
        observer: Who hears of it, as an update of the owner.
        through: The model of the join table.
        owner_attname: The attribute of a join row that names the owner.
        owner_field: The attribute of the owner that it refers to.
    """

    observer: Observed
    through: type[Model]
    owner_attname: str
    owner_field: str

    @classmethod
    def of(cls, observer: Observed, field: Many2Many) -> "Link":
        """Describe the join table of a field."""
        through = through_of(field)
        key = through._meta.get_field(field.m2m_field_name())
        return cls(observer, through, key.attname, key.target_field.attname)  # type: ignore[union-attr]


@dataclasses.dataclass(slots=True)
class Route:
    """Everything that hears of one table.

    Attributes:
        key_columns: Its primary key.
        observers: Those of models whose own table it is.
        links: Those of owners for which it is a join table.
    """

    key_columns: tuple[str, ...]
    observers: list[Observed] = dataclasses.field(default_factory=list)
    links: list[Link] = dataclasses.field(default_factory=list)

    def key(self, image: Image) -> Key:
        """The primary key in an image; the whole image where the model's key is not in it."""
        try:
            return tuple(image[column] for column in self.key_columns)
        except KeyError:
            return tuple(sorted((name, repr(value)) for name, value in image.items()))


class Routes:
    """The routes of one database.

    Attributes:
        version: Of the registry, when they were compiled.
        tables: The names of the tables that they know, as in ``db_table``.
    """

    def __init__(self, alias: str) -> None:
        self.version = registry.version
        self._routes: dict[str, Route] = {}
        for observer in registry.on(alias):
            self._route(observer.model_cls).observers.append(observer)
            for field in observer.many_to_many_fields:
                self._route(through_of(field)).links.append(Link.of(observer, field))
        self.tables = list(self._routes)

    def _route(self, model: type[Model]) -> Route:
        keys = model._meta.pk_fields
        columns = tuple(column for column, field in own_columns(model).items() if field in keys)
        return self._routes.setdefault(model._meta.db_table, Route(columns))

    def by_oid(self, oids: Mapping[str, int]) -> dict[int, Route]:
        """The routes by oid of their table.

        Args:
            oids: ``db_table`` to oid.
        """
        return {oids[table]: route for table, route in self._routes.items() if table in oids}
