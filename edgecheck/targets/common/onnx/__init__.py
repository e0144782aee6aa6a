"""ONNX files: what ONNX Runtime, its web build and TensorRT share."""
