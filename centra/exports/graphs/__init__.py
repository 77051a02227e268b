"""A merged model as one ONNX graph of plain operators, from ids of ``(batch, length)`` to logits."""
