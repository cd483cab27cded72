"""Optional C functions for the layers that torch computes slowly on CPUs; without them, torch computes these layers."""
