"""The client of ``lmdeploy serve api_server``."""

from lanner.api_client import APIClient

__all__ = ["APIClient"]
