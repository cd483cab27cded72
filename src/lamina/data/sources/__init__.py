"""Sources of images: each lists its images before any is decoded. To add a source, add a module here."""
