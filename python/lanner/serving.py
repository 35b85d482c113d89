"""A server of one's own from Python, and clients of servers that run already.

>>> with serve(MODEL, server_port=0) as api:
...     len(api.available_models)
1
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from ssl import PROTOCOL_TLS_CLIENT, VERIFY_X509_PARTIAL_CHAIN, SSLContext
from types import TracebackType
from typing import Any, cast

from lanner._options import template_option
from lanner._server_process import ServerProcess
from lanner.api_client import APIClient
from lanner.errors import InvalidArgumentError, LannerError

_logger = logging.getLogger("lanner")

# Fields of the engine configurations whose value is that of a flag.
_VALUES = {
    "dtype": "--dtype",
    "model_format": "--model-format",
    "tp": "--tp",
    "dp": "--dp",
    "cp": "--cp",
    "ep": "--ep",
    "session_len": "--session-len",
    "max_batch_size": "--max-batch-size",
    "cache_max_entry_count": "--cache-max-entry-count",
    "cache_block_seq_len": "--cache-block-seq-len",
    "block_size": "--cache-block-seq-len",
    "quant_policy": "--quant-policy",
    "rope_scaling_factor": "--rope-scaling-factor",
    "download_dir": "--download-dir",
    "revision": "--revision",
    "max_prefill_token_num": "--max-prefill-token-num",
    "num_tokens_per_iter": "--num-tokens-per-iter",
    "max_prefill_iters": "--max-prefill-iters",
    "async_": "--async",
    "communicator": "--communicator",
    "hf_overrides": "--hf-overrides",
    "nnodes": "--nnodes",
    "node_rank": "--node-rank",
    "dist_init_addr": "--dist-init-addr",
    "logprobs_mode": "--logprobs-mode",
    "model_name": "--model-name",
    "device": "--device",
    "device_type": "--device",
    "threads": "--threads",
}
# Those that are yes or no: the flags for True and for False, None where the server has no such flag.
_SWITCHES: dict[str, tuple[str | None, str | None]] = {
    "enable_prefix_caching": ("--enable-prefix-caching", "--disable-prefix-caching"),
    "enable_metrics": ("--enable-metrics", "--disable-metrics"),
    "language_model_only": ("--language-model-only", None),
    "eager_mode": ("--eager-mode", None),
    "deterministic": ("--deterministic", None),
}


class ServedClient(APIClient):
    """An `APIClient` of a server that `serve` started, and that ends with it.

    As a context manager it ends the server in the end; `close` does so too.
    """

    def __init__(
        self, server: ServerProcess, api_key: str | None = None, ssl_context: SSLContext | None = None
    ) -> None:
        super().__init__(server.url, api_key, ssl_context=ssl_context)
        self.server = server

    def close(self) -> None:
        """Ends the server; what is being answered may finish first. Calling it again does nothing.

        >>> served = serve(MODEL, server_port=0)
        >>> served.close()
        """
        self.server.close()

    def __enter__(self) -> ServedClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    model_path: str | os.PathLike[str],
    model_name: str | None = None,
    backend: str = "turbomind",
    backend_config: object | None = None,
    chat_template_config: object | None = None,
    server_name: str = "127.0.0.1",
    server_port: int = 23333,
    log_level: str = "WARNING",
    api_keys: str | Sequence[str] | None = None,
    ssl: bool = False,
    **flags: Any,
) -> ServedClient:
    """Starts ``lanner serve api_server`` as a child of this process, waits until it answers, and gives a client of it.

    The server ends with the client's `close`, and at the latest with this process.

    Args:
        model_path: what ``lanner serve api_server`` takes: a folder, a GGUF file, or ORGANIZATION/NAME on a hub.
        model_name: what clients call the model; by default the last part of its path.
        backend: accepted for scripts of LMDeploy; there is one engine.
        backend_config: a `TurbomindEngineConfig` or `PytorchEngineConfig`.
        chat_template_config: a `ChatTemplateConfig`, or what ``--chat-template`` takes.
        server_name: the address to listen on; ``"0.0.0.0"`` lets other machines in, which wants ``api_keys``.
        server_port: 0 takes any that is free.
        log_level: ``"INFO"`` prints a line for each request.
        api_keys: keys that open the server; the client uses the first one.
        ssl: TLS with the files that ``SSL_CERTFILE`` and ``SSL_KEYFILE`` name. The client trusts
            this certificate, whatever name it is for.
        **flags: any other flag of ``lanner serve api_server``, such as ``max_concurrent_requests=8``; True gives a flag
            that has no value.

    Raises:
        LannerError: the server ended before it answered; the message is its own.

    >>> with serve(MODEL, server_port=0, api_keys="secret") as api:
    ...     [len(answer["choices"]) for answer in api.completions_v1(api.available_models[0], "1, 2,", max_tokens=1)]
    [1]
    """
    if backend not in ("turbomind", "pytorch"):
        raise InvalidArgumentError(f"backend must be 'turbomind' or 'pytorch', not {backend!r}")
    keys = [api_keys] if isinstance(api_keys, str) else list(api_keys or ())
    words = ["--log-level", log_level, *engine_flags(backend_config)]
    if model_name is not None:
        words += ["--model-name", model_name]
    template = template_option(chat_template_config)
    words += ["--chat-template", template] if template else []
    for name, value in flags.items():
        words += _flag("--" + name.replace("_", "-"), value)
    context = None
    if ssl:
        words.append("--ssl")
        context = _trust_in(flags.get("ssl_certfile") or os.environ.get("SSL_CERTFILE", ""))
    server = ServerProcess(model_path, words, host=server_name, port=server_port, api_keys=keys)
    try:
        return ServedClient(server, keys[0] if keys else os.environ.get("LANNER_API_KEY") or None, context)
    except BaseException:
        server.close()
        raise


def client(api_server_url: str = "http://127.0.0.1:23333", api_key: str | None = None) -> APIClient:
    """A client of a server that runs already.

    >>> client("localhost:23333").api_server_url
    'http://localhost:23333'
    """
    return APIClient(api_server_url, api_key)


def engine_flags(config: object | None) -> list[str]:
    """The flags of the native program that say what an engine configuration says.

    What is None or at the configuration's own default is left to the program.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     session_len: int | None = None
    ...     quant_policy: int = 0
    >>> engine_flags(Config(session_len=2048))
    ['--session-len=2048']

    Raises:
        LannerError: a field asks for something that cannot be said by a flag.
    """
    if config is None:
        return []
    words: list[str] = []
    for name, value in _fields_that_say_something(config):
        if name in _VALUES:
            words += _flag(_VALUES[name], value)
        elif name in _SWITCHES:
            flag = _SWITCHES[name][0 if value else 1]
            words += [flag] if flag else []
        elif name == "adapters":
            words += ["--adapters", *(f"{adapter}={path}" for adapter, path in dict(value).items())]
        elif name == "use_logn_attn":
            raise LannerError(f"{name}={value!r} is not available in this version", "unsupported")
        else:
            _logger.warning("%s has no meaning here and is ignored", name)
    return words


def _trust_in(certificate: str) -> SSLContext:
    """Trust in one certificate: what listens where the child was told to is the child."""
    context = SSLContext(PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= VERIFY_X509_PARTIAL_CHAIN  # it need not be signed by itself
    try:
        context.load_verify_locations(certificate)
    except OSError as error:  # which ssl.SSLError is
        raise LannerError(f"SSL_CERTFILE: {certificate or 'not set'}: {error.strerror or error}", "io") from error
    return context


def _fields_that_say_something(config: object) -> list[tuple[str, Any]]:
    defaults: dict[str, Any] = {}
    if dataclasses.is_dataclass(config):
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
    names = list(defaults) or [*_VALUES, *_SWITCHES]
    values = [(name, getattr(config, name, None)) for name in names]
    return [(name, value) for name, value in values if value is not None and value != defaults.get(name)]


def _flag(flag: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    if isinstance(value, dict):
        return [f"{flag}={json.dumps(value)}"]
    if isinstance(value, (list, tuple)):
        return [flag, *(str(one) for one in cast("Sequence[Any]", value))]
    return [f"{flag}={value}"]  # one word: a value may begin with a dash
