"""The list of packages, the one thing that pyproject.toml cannot say; everything else is there.

``migrations_templates/`` lies at the top of the repository and is imported as
``djcrf_pg.migrations_templates``. The mapping holds in a wheel and in an editable install.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["djcrf_pg", "djcrf_pg.*"]), "djcrf_pg.migrations_templates"],
    package_dir={"djcrf_pg.migrations_templates": "migrations_templates"},
)
