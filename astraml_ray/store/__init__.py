"""The service's tables and named queries: SQLite embedded, PostgreSQL on a cluster. No Ray, no torch."""
