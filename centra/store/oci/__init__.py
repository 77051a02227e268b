"""OCI registries: container registries, which hold other artifacts as well."""

from centra.store.oci.address import OciAddress, is_oci
from centra.store.oci.repository import OciRepository

__all__ = ["OciAddress", "OciRepository", "is_oci"]
