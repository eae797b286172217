"""No package: rows that go with their parents, several levels deep."""
