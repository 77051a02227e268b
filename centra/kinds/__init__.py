"""Kinds of tasks."""
