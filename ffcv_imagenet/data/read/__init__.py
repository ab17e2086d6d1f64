"""From a .beton file to batches."""
