"""The tables, sessions and queries."""
