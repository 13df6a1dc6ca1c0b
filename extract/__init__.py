"""Media files to tokens: data sets, decoding, frozen encoders."""
