"""A .beton file, its manifest and its index: read and checked here only."""
