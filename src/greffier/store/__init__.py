"""The only code that speaks to PostgreSQL: connections, the writer, the schema's versions."""
