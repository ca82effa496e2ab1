"""Static quantization of exported models to 8 bits."""
