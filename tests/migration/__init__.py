"""Migrations as a product: none missing, the schema is their sum, and they run over live data."""
