"""Files of inputs, answered: JSONL, CSV, Parquet and lines of text, in constant memory."""
