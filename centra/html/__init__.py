"""Pages for people: one HTML file each, with its style and its plots inside, and nothing to fetch.

They run no script, so that they can be mailed, kept beside a model and printed.
"""
