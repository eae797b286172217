"""The cursor in a template is that of what the template shows."""

import pytest
from django.template import Context, Engine

from djcrf_pg import consistent_read
from djcrf_pg.exceptions import ReadError
from tests.servers import PgParams
from tests.testapp.models import Task

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "second"])

ENGINE = Engine(libraries={"djcrf_pg": "djcrf_pg.templatetags.djcrf_pg"})


def render(source: str, **values: object) -> str:
    return ENGINE.from_string("{% load djcrf_pg %}" + source).render(Context(values))


def test_it_is_that_of_the_read_and_lazy_querysets_are_read_with_it(test_pg: PgParams) -> None:
    with test_pg.connect() as other, consistent_read() as cursor:
        other.execute("INSERT INTO testapp_task (title, status, points, body) VALUES ('new', '', 0, '')")
        tasks = Task.objects.all()
        assert render("{% cursor %}|{% for task in tasks %}{{ task }}{% endfor %}", tasks=tasks) == f"{cursor}|"
    with pytest.raises(ReadError, match=r"no consistent_read of database 'default' is open where"):
        render("{% cursor %}")


def test_another_database_is_named() -> None:
    with consistent_read(using="second") as cursor:
        assert render('{% cursor using="second" %}') == cursor
        with pytest.raises(ReadError, match=r"but one of 'second': write"):
            render("{% cursor %}")
