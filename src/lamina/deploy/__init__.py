"""Export, report page, model card and server."""
