"""Attacks on the promises: crashes, races, hostile bytes, and stores that misbehave."""
