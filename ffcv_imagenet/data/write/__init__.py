"""Images to .beton files."""
