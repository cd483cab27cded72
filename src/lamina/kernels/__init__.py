"""Optional C functions for the layers that torch computes slowly on CPUs.

Without them, torch computes these layers.
"""
