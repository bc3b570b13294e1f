"""Photographs with image-level labels: every source gives the same `Item`."""
