"""A backbone's tokenizer, in one file, and the proof that it gives transformers' ids."""
