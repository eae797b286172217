"""What templates load: ``{% load djcrf_pg %}``."""
