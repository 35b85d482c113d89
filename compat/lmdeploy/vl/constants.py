"""What stands for an image in a prompt."""

from lanner.vl import IMAGE_TOKEN

__all__ = ["IMAGE_TOKEN"]
