"""No page: what is measured goes over WebSockets, and what writes has no request."""

urlpatterns: list[object] = []
