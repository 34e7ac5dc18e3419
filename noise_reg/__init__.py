"""Regularisation by noise, reproduced: sweeps trained as one stacked network."""
