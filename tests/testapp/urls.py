"""No pages: the test application is spoken to over WebSockets."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
