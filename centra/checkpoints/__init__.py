"""Models as transformers saves them: reading, placing every tensor, making modules of them."""
