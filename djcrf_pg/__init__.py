"""DCRF observers driven by PostgreSQL triggers instead of Django signals."""

__version__ = "0.1.0"
