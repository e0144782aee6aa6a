"""Which layers of a quantized model cost the most, and which to keep in float."""
