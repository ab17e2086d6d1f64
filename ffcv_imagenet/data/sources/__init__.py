"""What is on disk: images and their labels."""
