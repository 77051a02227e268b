"""Where blobs and pointers lie: one small protocol, a local folder, S3."""
