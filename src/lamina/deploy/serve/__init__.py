"""``lamina serve``: an HTTP API of runs' models, and a page to try them; the model computes in a process of its own."""
