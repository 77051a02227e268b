"""The documentation site: what the repository's pages are, made ready for the site's generator.

``make docs`` runs ``python -m docs_site``, which lays the pages out in ``build/pages`` as they lie in the
repository, with the references that are generated from the code, and then the generator
(``zensical.toml``). So a link that works in the repository works on the site.
"""
