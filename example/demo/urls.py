"""The demo's HTTP side: one page, and one POST per button."""

from django.urls import path

from board import views

urlpatterns = [
    path("", views.index, name="index"),
    path("write/<slug:name>/", views.write, name="write"),
]
