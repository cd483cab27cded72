"""Sources of images: what each one holds, before anything is decoded. A new source is one file here."""
