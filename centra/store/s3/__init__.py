"""A blob store in an S3 bucket, through boto3: any endpoint, path or virtual style."""

from centra.store.s3.store import S3Store

__all__ = ["S3Store"]
