"""``{% cursor %}``: the cursor of what the view has read, for a script that subscribes from there."""

from django import template
from django.db import DEFAULT_DB_ALIAS

from djcrf_pg.observer.reading import cursor_of_read

register = template.Library()


@register.simple_tag
def cursor(using: str = DEFAULT_DB_ALIAS) -> str:
    """Print the cursor of the ``djcrf_pg.consistent_read()`` in which the template is rendered.

    It is that of the connection which the template's own queries use, so a queryset that is evaluated only here is
    read with the same snapshot. Escaped as any value is; ``{% cursor as name %}`` keeps it in a variable.

    Args:
        using: The alias of the database.

    Raises:
        ReadError: The template is rendered outside of such a block.
    """
    return cursor_of_read(using)


@register.simple_tag(takes_context=True)
def changes_link(context: template.Context) -> str:
    """The page with the changes of the row that a change form of Django's admin shows; empty where there is none.

    For ``admin/change_form_object_tools.html``, also a project's own.
    """
    from djcrf_pg.admin import history_url_of

    request, original = getattr(context, "request", None), context.get("original")
    return "" if request is None or original is None else history_url_of(request, original)
