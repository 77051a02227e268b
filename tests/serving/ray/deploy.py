"""Deploys the Serve config file of standard input to the cluster of ``RAY_ADDRESS``.

``serve deploy`` does the same through Ray's dashboard, which tests do without.
"""

from __future__ import annotations

import os
import sys

import ray
import yaml
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

if __name__ == "__main__":
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate(yaml.safe_load(sys.stdin)))
