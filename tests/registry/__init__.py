"""Tests of :mod:`registry`."""
