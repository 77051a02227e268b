"""One set of documents: all that ``--json`` prints, and what a server on top of the registry sends.

A module a noun. Each document is made from the records of the registry by its own ``of``, and says what
its fields mean; the reference page, ``docs/json.md``, is generated from that. The words that several
documents share are explained once, in :mod:`registry.documents.base`.
"""
