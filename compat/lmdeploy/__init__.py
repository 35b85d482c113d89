"""Lanner under the name that scripts for LMDeploy import."""

from lanner import (
    ChatTemplateConfig,
    GenerationConfig,
    Pipeline,
    PytorchEngineConfig,
    Tokenizer,
    TurbomindEngineConfig,
    VisionConfig,
    __version__,
    pipeline,
    version_info,
)
from lanner.serving import client, serve

__all__ = [
    "ChatTemplateConfig",
    "GenerationConfig",
    "Pipeline",
    "PytorchEngineConfig",
    "Tokenizer",
    "TurbomindEngineConfig",
    "VisionConfig",
    "__version__",
    "client",
    "pipeline",
    "serve",
    "version_info",
]
