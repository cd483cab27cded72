"""The workbench in the browser. Everything it does is a lamina command, and every result is an ordinary run."""
