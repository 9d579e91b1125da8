"""The schema's history (Alembic), inside the package, so that an installed wheel can migrate."""
