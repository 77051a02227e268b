"""What is written to files and stores: names, specs, manifests, and how they are read and checked."""
