"""``lamina serve``: an HTTP API and a web page for models, which run in a worker process."""
