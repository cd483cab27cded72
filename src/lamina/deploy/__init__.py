"""What leaves a run: exported files, a report page, a model card, a server."""
