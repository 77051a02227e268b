"""The onnx engine."""
