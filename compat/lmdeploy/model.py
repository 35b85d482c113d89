"""Chat templates."""

from lanner.messages import ChatTemplateConfig

__all__ = ["ChatTemplateConfig"]
