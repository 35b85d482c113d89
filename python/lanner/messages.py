"""What a pipeline is set up and asked with, and what it answers: LMDeploy's dataclasses under their own names.

A field that LMDeploy has and Lanner gives no meaning to is accepted; `lanner.pipeline` logs which of them were set.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

from lanner.errors import InvalidArgumentError, LannerError

FinishReason = Literal["stop", "length", "abort", "error"]


_NOT_BUILT = ("output_last_hidden_state", "return_ppl", "logits_processors", "repetition_ngram_size")


def _check(holds: bool, text: str) -> None:
    if not holds:
        raise InvalidArgumentError(text)


@dataclass
class GenerationConfig:
    """How one answer is made.

    Sampling happens with ``do_sample=True``, and where ``top_k`` is given, more than 1, and nothing is said of
    ``do_sample``; else the answer is greedy. After construction every field has its value.

    Attributes:
        n: answers for each prompt; only 1, since a list may hold a prompt several times.
        max_new_tokens: tokens of the answer at most; None: as many as the context has room for.
        do_sample: draw from the distribution instead of taking the best token.
        top_p: of the most likely tokens, those which together have this probability (0 to 1).
        top_k: of the most likely tokens, so many; 0: all.
        min_p: tokens at least this likely, as a share of the best one's probability (0 to 1).
        temperature: by which logits are divided (0 to 2).
        repetition_penalty: divides the logits of tokens that were there already; 1: none.
        ignore_eos: go on where the model would end.
        random_seed: the same seed draws the same tokens; None: drawn anew.
        stop_words: the answer ends before any of these texts.
        bad_words: texts that must not appear.
        stop_token_ids, bad_token_ids: the same as token ids.
        min_new_tokens: the answer does not end before so many tokens.
        skip_special_tokens: leave special tokens out of the text.
        spaces_between_special_tokens: accepted; texts are as Transformers decodes them.
        logprobs: of each token its log-probability and those of so many best ones, by the unfiltered model.
        response_format: what the answer must be: ``{"type": "json_schema", "json_schema": {"schema": {...}}}``,
            ``{"type": "json_object"}`` or ``{"type": "regex_schema", "regex_schema": "..."}``.
        include_stop_str_in_output: keep the stop word that ended the answer.
        output_logits: "all" gives `Response.logits` of prompt and answer, "generation" those of the answer.
        output_last_hidden_state, return_ppl, logits_processors, repetition_ngram_size, repetition_ngram_threshold:
            of LMDeploy; a value that asks for something is refused.

    >>> GenerationConfig(top_k=40, top_p=0.8).do_sample
    True
    >>> GenerationConfig(top_p=0.8).do_sample
    False
    """

    n: int = 1
    max_new_tokens: int | None = 512
    do_sample: bool | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    temperature: float | None = None
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    random_seed: int | None = None
    stop_words: list[str] | None = None
    bad_words: list[str] | None = None
    stop_token_ids: list[int] | None = None
    bad_token_ids: list[int] | None = None
    min_new_tokens: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    include_stop_str_in_output: bool = False
    output_logits: Literal["all", "generation"] | None = None
    output_last_hidden_state: Literal["all", "generation"] | None = None
    return_ppl: bool = False
    logits_processors: list[Any] | None = None
    repetition_ngram_size: int = 0
    repetition_ngram_threshold: int = 0

    def __post_init__(self) -> None:
        for name in _NOT_BUILT:
            if getattr(self, name):
                raise LannerError(f"{name} is not available in this version", "unsupported")
        if self.do_sample is None:
            self.do_sample = self.top_k is not None and self.top_k > 1
        self.top_p = 1.0 if self.top_p is None else self.top_p
        self.top_k = 50 if self.top_k is None else self.top_k
        self.min_p = 0.0 if self.min_p is None else self.min_p
        self.temperature = 0.8 if self.temperature is None else self.temperature
        _check(self.n > 0, f"n must be positive, not {self.n}")
        _check(0 <= self.top_p <= 1, f"top_p must be from 0 to 1, not {self.top_p}")
        _check(self.top_k >= 0, f"top_k must not be negative, but is {self.top_k}")
        _check(0 <= self.min_p <= 1, f"min_p must be from 0 to 1, not {self.min_p}")
        _check(0 <= self.temperature <= 2, f"temperature must be from 0 to 2, not {self.temperature}")
        _check(self.logprobs is None or 0 <= self.logprobs <= 1024, "logprobs must be from 0 to 1024")
        _check(
            self.max_new_tokens is None or 0 <= self.max_new_tokens < 2**31, "max_new_tokens must be from 0 to 2**31"
        )
        _check(self.random_seed is None or 0 <= self.random_seed < 2**64, "random_seed must be from 0 to 2**64")


@dataclass
class TurbomindEngineConfig:
    """How an engine is set up. What it is called after is LMDeploy's main engine; Lanner has one.

    Attributes:
        dtype: "auto", "float16", "bfloat16" or "float32": of arithmetic and KV cache.
        model_format: "awq" or "gptq", where a folder's config.json does not say; None or "hf": as it says.
        tp: devices that share the model.
        session_len: tokens of the longest context, prompt and answer together; None: what the model was trained for.
        max_batch_size: sequences that run at once; None: by the device.
        cache_max_entry_count: share of the memory that is free after the weights which the KV cache may take.
        cache_block_seq_len: accepted; blocks have a size of their own.
        enable_prefix_caching: reuse what prompts have in common; None: yes.
        quant_policy: how the KV cache keeps numbers: 0 in 16 bits, 8 as int8, 4 as int4.
        rope_scaling_factor: accepted as 0: the model says.
        download_dir: folder for what is downloaded; None: the hub's cache.
        revision: branch, tag or commit on the hub.
        max_prefill_token_num: prompt tokens that are computed in one step; None: by the device.
        device: "auto", "cpu" or "cuda": where the model runs (Lanner's own).
        threads: CPU threads; 0: one for each fast core this process may use (Lanner's own).
        deterministic: answers do not depend on what else runs (Lanner's own).

    >>> TurbomindEngineConfig(model_format="awq", cache_max_entry_count=0.4).quant_policy
    0
    """

    dtype: str = "auto"
    model_format: str | None = None
    tp: int = 1
    dp: int = 1
    cp: int = 1
    ep: int = 1
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float = 0.8
    cache_chunk_size: int = -1
    cache_block_seq_len: int = 64
    enable_prefix_caching: bool | None = None
    quant_policy: int = 0
    rope_scaling_factor: float = 0.0
    use_logn_attn: bool = False
    download_dir: str | None = None
    revision: str | None = None
    max_prefill_token_num: int | None = None
    num_tokens_per_iter: int = 0
    max_prefill_iters: int = 1
    async_: int = 1
    devices: list[int] | None = None
    empty_init: bool = False
    language_model_only: bool = False
    communicator: str = "nccl"
    hf_overrides: dict[str, Any] | None = None
    enable_metrics: bool = True
    nnodes: int = 1
    node_rank: int = 0
    dist_init_addr: str | None = None
    model_name: str | None = None
    device: str = "auto"
    threads: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        _check_engine(self.tp, self.cache_max_entry_count, self.quant_policy, self.max_prefill_token_num)
        _check(self.num_tokens_per_iter >= 0, "num_tokens_per_iter must not be negative")
        _check(self.rope_scaling_factor >= 0, "rope_scaling_factor must not be negative")


@dataclass
class PytorchEngineConfig:
    """LMDeploy's other configuration, for scripts that use it; the engine is the same as `TurbomindEngineConfig`'s.

    Fields that both have mean the same. ``device_type`` is "cpu", or "cuda", which is LMDeploy's default and means
    "auto" here: a device where there is one. The others are accepted.

    >>> PytorchEngineConfig(session_len=4096).block_size
    64
    """

    dtype: str = "auto"
    tp: int = 1
    dp: int = 1
    dp_rank: int = 0
    ep: int = 1
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float = 0.8
    prefill_interval: int = 16
    block_size: int = 64
    num_cpu_blocks: int = 0
    num_gpu_blocks: int = 0
    adapters: dict[str, str] | None = None
    max_prefill_token_num: int | None = None
    thread_safe: bool = False
    enable_prefix_caching: bool | None = None
    device_type: str = "auto"
    eager_mode: bool = False
    custom_module_map: dict[str, str] | None = None
    download_dir: str | None = None
    revision: str | None = None
    quant_policy: int = 0
    distributed_executor_backend: str | None = None
    empty_init: bool = False
    enable_microbatch: bool = False
    enable_eplb: bool = False
    enable_metrics: bool = True
    hf_overrides: dict[str, Any] | None = None
    language_model_only: bool = False
    logprobs_mode: str | None = None

    def __post_init__(self) -> None:
        _check_engine(self.tp, self.cache_max_entry_count, self.quant_policy, self.max_prefill_token_num)


def _check_engine(tp: int, cache: float, quant_policy: int, prefill: int | None) -> None:
    _check(tp >= 1, f"tp must be at least 1, not {tp}")
    _check(0 < cache < 1, f"cache_max_entry_count must be between 0 and 1, not {cache}")
    _check(quant_policy in (0, 4, 8), f"quant_policy must be 0, 4 or 8, not {quant_policy}")
    _check(prefill is None or prefill >= 0, "max_prefill_token_num must not be negative")


EngineConfig = TurbomindEngineConfig | PytorchEngineConfig


@dataclass
class ChatTemplateConfig:
    """A chat template, named or made of pieces:
    ``{system}{meta_instruction}{eosys}{user}{content}{eoh}{assistant}{content}{eoa}{separator}{user}…``.

    A piece that is None is the named template's own.

    Attributes:
        model_name: a built-in template (``lanner list`` prints them); None: pieces alone.
        model_path: a .jinja file, in place of everything else.
        capability: "chat", or "completion" for prompts that go to the model as they are.

    >>> ChatTemplateConfig("internlm2", meta_instruction="Be brief.").to_json()
    '{"model_name": "internlm2", "meta_instruction": "Be brief."}'
    """

    model_name: str | None = None
    model_path: str | None = None
    system: str | None = None
    meta_instruction: str | None = None
    eosys: str | None = None
    user: str | None = None
    eoh: str | None = None
    assistant: str | None = None
    eoa: str | None = None
    tool: str | None = None
    eotool: str | None = None
    separator: str | None = None
    capability: Literal["completion", "infilling", "chat", "python"] | None = None
    stop_words: list[str] | None = None

    def to_json(self, file_path: str | None = None) -> str:
        """The template as JSON text, which ``--chat-template`` takes as well; also written to a file, if named.

        >>> ChatTemplateConfig(user="Q: ").to_json()
        '{"user": "Q: "}'
        """
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        text = json.dumps(given, ensure_ascii=False)
        if file_path is not None:
            Path(file_path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, file_or_string: str) -> ChatTemplateConfig:
        """Reads what `to_json` wrote: a file's path or the text itself.

        Raises:
            InvalidArgumentError: it is neither, or has a field that is none.

        >>> ChatTemplateConfig.from_json('{"model_name": "internlm2"}').model_name
        'internlm2'
        """
        path = Path(file_or_string)
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else file_or_string
        except OSError:  # a text too long for a path
            text = file_or_string
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidArgumentError(f"a chat template is neither a file nor JSON: {error}") from None
        known = {one.name for one in dataclasses.fields(cls)}
        _check(isinstance(fields, dict), "a chat template is a JSON object")
        unknown = sorted(set(fields) - known)
        _check(not unknown, f"a chat template has no field {', '.join(unknown)}")
        return cls(**fields)


@dataclass
class VisionConfig:
    """How a vision tower is run: accepted, for scripts of LMDeploy.

    >>> VisionConfig().max_batch_size
    1
    """

    max_batch_size: int = 1
    thread_safe: bool = False


@dataclass
class SpeculativeConfig:
    """Speculative decoding, for scripts of LMDeploy: `lanner.pipeline` refuses it.

    >>> SpeculativeConfig("eagle3").num_speculative_tokens
    1
    """

    method: str
    model: str = ""
    num_speculative_tokens: int = 1


@dataclass
class Response:
    """An answer, or a piece of one that is streamed.

    Attributes:
        text: of the answer; of a piece what is new.
        generate_token_len: tokens of the answer so far, the one that ended it among them.
        input_token_len: tokens of the prompt.
        session_id: the number of the conversation.
        finish_reason: "stop", "length", "abort" or "error"; None while more follows.
        token_ids: of the text, without the one that ended it.
        logprobs: of each token id, ``{id: log-probability}`` of itself and the best, where they were asked for.
        logits: (tokens, vocabulary), fp32, where they were asked for.
        index: which prompt of the list it answers.
        cached_tokens: of the prompt, that were not computed anew.
        error_code, error_message: why the finish reason is "error".

    >>> Response("Hi", 2, 9, session_id=0, finish_reason="stop")
    Response(text='Hi', generate_token_len=2, input_token_len=9, session_id=0, finish_reason='stop')
    """

    text: str
    generate_token_len: int
    input_token_len: int
    session_id: int = 0
    finish_reason: FinishReason | None = None
    token_ids: list[int] = field(default_factory=list[int], repr=False)
    logprobs: list[dict[int, float]] | None = field(default=None, repr=False)
    logits: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    index: int = field(default=0, repr=False)
    cached_tokens: int = field(default=0, repr=False)
    error_code: str | None = field(default=None, repr=False)
    error_message: str | None = field(default=None, repr=False)


Message = dict[str, Any]
# A text, or a conversation; and several of them.
Prompt = str | list[Message]
Prompts = list[str] | list[list[Message]] | list[Prompt]
