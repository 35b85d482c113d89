"""Images in prompts."""

from lanner.vl import encode_image_base64, load_image

__all__ = ["encode_image_base64", "load_image"]
