"""Attacks on the promises: kills, power cuts, races, faults and hostile bytes.

``make torture`` runs them for long and writes ``benchmarks/RELIABILITY.md``; ``make test`` runs a
short, fixed sample of each.
"""
