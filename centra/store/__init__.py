"""Where blobs and pointers lie: one small protocol, a local folder, S3."""

from centra.store.address import anchored_store, cache_folder, open_path, open_store
from centra.store.local import LocalStore
from centra.store.protocol import (
    BlobProblem,
    BlobReader,
    BlobStore,
    BlobWriter,
    StoredBlob,
    Witness,
)

__all__ = [
    "BlobProblem",
    "BlobReader",
    "BlobStore",
    "BlobWriter",
    "LocalStore",
    "StoredBlob",
    "Witness",
    "anchored_store",
    "cache_folder",
    "open_path",
    "open_store",
]
