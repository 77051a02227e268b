"""The Open Inference Protocol, version 2, over HTTP and gRPC: what clients of Triton, KServe and MLServer speak."""
