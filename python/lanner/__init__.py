"""Lanner runs large language models: `pipeline` opens one, and answers prompts.

    from lanner import pipeline
    pipe = pipeline("org/name")
    print(pipe(["Hi, pls intro yourself", "上海是"]))

The native program ``lanner`` comes with this package: ``lanner --help`` lists what it does.
"""

from __future__ import annotations

from lanner._core import __version__
from lanner.api_client import APIClient
from lanner.errors import InvalidArgumentError, LannerError, ModelNotFoundError
from lanner.messages import (
    ChatTemplateConfig,
    GenerationConfig,
    PytorchEngineConfig,
    Response,
    SpeculativeConfig,
    TurbomindEngineConfig,
    VisionConfig,
)
from lanner.pipeline import Pipeline, pipeline
from lanner.serving import client, serve
from lanner.session import Session
from lanner.tokenizer import DetokenizeState, Tokenizer

version_info = tuple(int(part) for part in __version__.split("."))

__all__ = [
    "APIClient",
    "ChatTemplateConfig",
    "DetokenizeState",
    "GenerationConfig",
    "InvalidArgumentError",
    "LannerError",
    "ModelNotFoundError",
    "Pipeline",
    "PytorchEngineConfig",
    "Response",
    "Session",
    "SpeculativeConfig",
    "Tokenizer",
    "TurbomindEngineConfig",
    "VisionConfig",
    "__version__",
    "client",
    "pipeline",
    "serve",
    "version_info",
]
