"""The workbench in the browser. It runs lamina commands, and every result is an ordinary run."""
