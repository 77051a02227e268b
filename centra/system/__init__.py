"""What the operating system gives: files, processors, memory, processes."""
