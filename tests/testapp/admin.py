"""Models that the admin shows: one that is observed, and one that is not."""

from django.contrib import admin

from tests.testapp.models import Task, Unheard

admin.site.register([Task, Unheard])
