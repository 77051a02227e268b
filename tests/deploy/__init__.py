"""Tests of ``examples/deploy``: images, Compose, Kubernetes, Helm and KServe."""
