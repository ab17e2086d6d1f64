"""A run's folder: the only way in and out."""
