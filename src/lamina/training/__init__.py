"""Training: a recipe and its loop. Import names from their modules or from ``lamina``."""
