"""Decisions on plain values, without disk or database."""
