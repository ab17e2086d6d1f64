"""Look at runs while they train: a live table, or a page that refreshes itself.

    python -m ffcv_imagenet.watch [runs/ ...] [--html FILE|PORT] [--once]

Reads run folders and nothing else, writes nothing into them, and imports no torch: it runs wherever the folders can be
seen, such as a cluster's login node. Ctrl-C ends it.
"""
