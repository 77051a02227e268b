"""The network in torch: trunk, branches, heads."""
