"""Releases: composing, proving, materialising, signing and measuring them."""
