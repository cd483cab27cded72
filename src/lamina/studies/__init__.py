"""Studies: choose a net and recipe, train with a time limit, or compare several seeds."""
