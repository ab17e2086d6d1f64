"""From image files to .beton files, and from .beton files to batches."""
