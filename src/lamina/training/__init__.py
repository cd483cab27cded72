"""Training: a recipe and the loop that follows it. Import names from their modules or from ``lamina``."""
