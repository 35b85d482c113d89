"""Engine configurations to the native options."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from typing import Any, cast

from lanner import _core
from lanner.errors import InvalidArgumentError, LannerError
from lanner.messages import ChatTemplateConfig, EngineConfig, PytorchEngineConfig

_logger = logging.getLogger("lanner")

_DTYPES = {
    "auto": _core.ComputeType.AUTO,
    "float16": _core.ComputeType.FLOAT16,
    "bfloat16": _core.ComputeType.BFLOAT16,
    "float32": _core.ComputeType.FLOAT32,
}
_DEVICES = {"auto": _core.Device.AUTO, "cpu": _core.Device.CPU, "cuda": _core.Device.CUDA}
_POLICIES = {0: _core.QuantPolicy.NONE, 4: _core.QuantPolicy.INT4, 8: _core.QuantPolicy.INT8}

# Fields with a meaning here, or which change nothing whatever they say.
_USED = {
    "dtype", "model_format", "session_len", "max_batch_size", "cache_max_entry_count", "enable_prefix_caching",
    "quant_policy", "download_dir", "revision", "max_prefill_token_num", "device", "device_type", "threads",
    "deterministic", "model_name",
}  # fmt: skip
# What cannot be done yet must not pass in silence: the field, and what of it works.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "tp": (1,), "dp": (1,), "cp": (1,), "ep": (1,), "nnodes": (1,), "adapters": (None, {}),
    "hf_overrides": (None, {}), "rope_scaling_factor": (0.0,), "use_logn_attn": (False,),
}  # fmt: skip


def _choose(table: dict[Any, Any], field: str, value: object) -> Any:
    if value not in table:
        known = ", ".join(repr(one) for one in table)
        raise InvalidArgumentError(f"{field} must be one of {known}, not {value!r}")
    return table[value]


def _look_through(config: EngineConfig) -> None:
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if one.name in _REFUSED:
            if value not in _REFUSED[one.name]:
                raise LannerError(f"{one.name}={value!r} is not available in this version", "unsupported")
        elif one.name not in _USED and value != one.default:
            _logger.warning("%s has no meaning here and is ignored", one.name)


def template_option(template: object | None) -> str:
    """What ``--chat-template`` would be given for a name, a path, JSON text, or a `ChatTemplateConfig`; else nothing.

    Raises:
        InvalidArgumentError: it is none of these.
    """
    if template is None:
        return ""
    if isinstance(template, (str, os.PathLike)):
        return os.fspath(template)
    path = getattr(template, "model_path", None)
    if path is not None:
        return str(path)
    if not hasattr(template, "to_json"):
        raise InvalidArgumentError(f"chat_template_config: a {type(template).__name__} is no chat template")
    text = str(cast("Any", template).to_json())
    given = json.loads(text)
    if not given:
        return ""
    # A built-in template's name alone: where there is none of that name, the message says which ones there are.
    return str(given["model_name"]) if set(given) == {"model_name"} else text


def native_options(config: EngineConfig, template: ChatTemplateConfig | None) -> _core.PipelineOptions:
    """The options of the native pipeline for a configuration.

    Raises:
        LannerError: a field asks for something that this version cannot do.
    """
    _look_through(config)
    engine = _core.EngineOptions()
    engine.dtype = _choose(_DTYPES, "dtype", config.dtype)
    engine.quant_policy = _choose(_POLICIES, "quant_policy", config.quant_policy)
    engine.cache_max_entry_count = config.cache_max_entry_count
    engine.session_len = config.session_len or 0
    engine.max_batch_size = config.max_batch_size
    engine.max_prefill_token_num = config.max_prefill_token_num or None
    engine.enable_prefix_caching = config.enable_prefix_caching is not False
    if isinstance(config, PytorchEngineConfig):
        # "cuda" is what LMDeploy's scripts say without having chosen.
        wanted = "auto" if config.device_type == "cuda" else config.device_type
        engine.device = _choose(_DEVICES, "device_type", wanted)
    else:
        engine.device = _choose(_DEVICES, "device", config.device)
        engine.model_format = config.model_format or ""
        engine.threads = config.threads
        engine.deterministic = config.deterministic
    options = _core.PipelineOptions()
    options.engine = engine
    options.chat_template = template_option(template)
    return options
