"""Inputs and labels, as people write them and as tasks have them."""
