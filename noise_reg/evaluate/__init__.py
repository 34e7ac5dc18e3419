"""Evaluations: one file a family, (model, data) -> rows (strength, accuracy)."""
