"""Sources of images: each lists its images before decoding. To add a source, add a module here."""
