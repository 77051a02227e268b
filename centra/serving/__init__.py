"""Serving: requests of many clients become batches, and releases change under them."""
