"""``lamina serve``: an HTTP API for the models of runs, and a page to try them. The models run in a worker process."""
