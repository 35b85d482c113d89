"""Configurations and answers."""

from lanner.messages import (
    ChatTemplateConfig,
    GenerationConfig,
    PytorchEngineConfig,
    Response,
    SpeculativeConfig,
    TurbomindEngineConfig,
    VisionConfig,
)

EngineGenerationConfig = GenerationConfig  # until LMDeploy 0.5

__all__ = [
    "ChatTemplateConfig",
    "EngineGenerationConfig",
    "GenerationConfig",
    "PytorchEngineConfig",
    "Response",
    "SpeculativeConfig",
    "TurbomindEngineConfig",
    "VisionConfig",
]
