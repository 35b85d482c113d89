"""`pipeline`: a model that answers prompts, one or a thousand at once.

>>> with pipeline(MODEL) as pipe:
...     answer = pipe("What is the capital of France?", gen_config=GenerationConfig(max_new_tokens=16))
>>> "Paris" in answer.text
True
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import os
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, cast, overload

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from lanner import _core
from lanner._loading import find_model, load_model
from lanner._options import native_options
from lanner._requests import BrokenTextError, grammar_of, is_single, listed, native_config, native_request, response_of
from lanner._running import Batch, LoopInbox, Running
from lanner.errors import InvalidArgumentError, LannerError
from lanner.messages import (
    ChatTemplateConfig,
    EngineConfig,
    GenerationConfig,
    Prompt,
    Prompts,
    Response,
    TurbomindEngineConfig,
)
from lanner.session import Session

_logger = logging.getLogger("lanner")

# Failures of a submission that are its prompt's.
_OF_ONE_PROMPT = ("invalid_argument", "too_long", "unsupported")

GenConfigs = GenerationConfig | Sequence[GenerationConfig] | None


class Pipeline:
    """A model on a device, open until `close`, the end of a ``with`` block, or garbage collection.

    Threads: any number may ask at once; their prompts run together. A process that was forked from the one that opened
    it cannot use it. Made by `pipeline`.

    >>> pipe("Say hello.", gen_config=GenerationConfig(max_new_tokens=8)).finish_reason in ("stop", "length")
    True
    """

    def __init__(
        self,
        model_path: str,
        backend_config: EngineConfig | None = None,
        chat_template_config: ChatTemplateConfig | None = None,
    ) -> None:
        config = backend_config or TurbomindEngineConfig()
        options = native_options(config, chat_template_config)
        self._always_raw = chat_template_config is not None and chat_template_config.capability == "completion"
        self._core = load_model(find_model(os.fspath(model_path), config), options)
        for note in self._core.notes:
            _logger.warning("%s", note)
        self._vocab_size = self._core.vocab_size
        self._sessions = itertools.count()
        self._inboxes: dict[asyncio.AbstractEventLoop, LoopInbox] = {}  # of loops with requests under way
        _open_pipelines.add(self)

    # Asking

    @overload
    def infer(
        self, prompts: Prompt, gen_config: GenConfigs = None, do_preprocess: bool = True,
        adapter_name: str | None = None, use_tqdm: bool = False, **kwargs: Any,
    ) -> Response: ...  # fmt: skip
    @overload
    def infer(
        self, prompts: Prompts, gen_config: GenConfigs = None, do_preprocess: bool = True,
        adapter_name: str | None = None, use_tqdm: bool = False, **kwargs: Any,
    ) -> list[Response]: ...  # fmt: skip
    def infer(
        self, prompts: Prompt | Prompts, gen_config: GenConfigs = None, do_preprocess: bool = True,
        adapter_name: str | None = None, use_tqdm: bool = False, **kwargs: Any,
    ) -> Response | list[Response]:  # fmt: skip
        """Answers a prompt, or a list of them, all at once; answers come in the order of the prompts.

        A prompt is a text or a conversation: a list of ``{"role": …, "content": …}``. A prompt that cannot be answered
        (one that is too long, say) has the finish reason "error" and an `Response.error_message`; others go on.

        Args:
            prompts: one prompt or a list of them.
            gen_config: how answers are made, one for all or one for each; None: as the model's
                generation_config.json says, else sampled with temperature 0.8, top_p 0.8 and top_k 40.
            do_preprocess: put the chat template around each prompt; else it goes to the model as it is.
            use_tqdm: show a progress bar on stderr.
            **kwargs: fields of `GenerationConfig` in its place, as scripts of LMDeploy 0.3 have them.

        Raises:
            LannerError: the pipeline is closed, or a configuration makes no sense.

        >>> answers = pipe(["One.", "Two."], gen_config=GenerationConfig(max_new_tokens=4))
        >>> [answer.index for answer in answers]
        [0, 1]
        """
        asked = listed(prompts)
        answers: list[Response | None] = [None] * len(asked)
        with tqdm(total=len(asked), disable=not use_tqdm) as bar:
            for answer in self._answers(asked, gen_config, do_preprocess, adapter_name, kwargs, whole=True):
                answers[answer.index] = answer
                bar.update()
        done = cast("list[Response]", answers)
        return done[0] if is_single(prompts) else done

    __call__ = infer

    def batch_infer(
        self,
        prompts: Prompt | Prompts,
        gen_config: GenConfigs = None,
        do_preprocess: bool = True,
        **kwargs: Any,
    ) -> list[Response]:
        """`infer` that gives a list for one prompt, too: LMDeploy's older name.

        >>> len(pipe.batch_infer("Hello", gen_config=GenerationConfig(max_new_tokens=2)))
        1
        """
        return self.infer(listed(prompts), gen_config, do_preprocess, **kwargs)

    def stream_infer(
        self, prompts: Prompt | Prompts, sessions: Session | Sequence[Session] | None = None,
        gen_config: GenConfigs = None, do_preprocess: bool = True, adapter_name: str | None = None,
        stream_response: bool = True, **kwargs: Any,
    ) -> Iterator[Response]:  # fmt: skip
        """As `infer`, piece by piece: `Response.text` is what is new, `Response.index` says of which prompt.

        The last piece of each prompt has a finish reason. Leaving the loop ends what still runs.

        >>> pieces = pipe.stream_infer("Count to three.", gen_config=GenerationConfig(max_new_tokens=8))
        >>> [piece.finish_reason for piece in pieces][-1] in ("stop", "length")
        True
        """
        asked = listed(prompts)
        given = [sessions] if isinstance(sessions, Session) else list(sessions or [])
        if given:
            if len(given) != len(asked):
                raise InvalidArgumentError("as many sessions are needed as there are prompts")
            pairs = zip(given, asked, strict=True)
            asked = [cast("Prompt", session.messages(prompt)) for session, prompt in pairs]
        return self._answers(asked, gen_config, do_preprocess, adapter_name, kwargs, whole=not stream_response)

    def _answers(
        self, prompts: list[Prompt], gen_config: GenConfigs, preprocess: bool, adapter_name: str | None,
        kwargs: Mapping[str, Any], whole: bool,
    ) -> Iterator[Response]:  # fmt: skip
        core = self._live()
        if adapter_name is not None:
            raise LannerError("adapters are not available in this version", "unsupported")
        configs = self._spread(self._config_of(gen_config, kwargs), len(prompts))
        session_ids = [next(self._sessions) for _ in prompts]
        with Batch(core) as batch:
            for index, (prompt, config) in enumerate(zip(prompts, configs, strict=True)):
                refused = self._submit(batch, index, session_ids[index], prompt, config, preprocess, whole)
                if refused is not None:
                    yield refused
            for running, chunk in batch.chunks():
                yield self._response(chunk, running, running.index, session_ids[running.index])

    def _submit(
        self, batch: Batch, index: int, session_id: int, prompt: Prompt, config: GenerationConfig | None,
        preprocess: bool, whole: bool,
    ) -> Response | None:  # fmt: skip
        """Starts one prompt. What is wrong with it alone becomes its answer."""
        try:
            request = self._request(prompt, config, preprocess)
        except BrokenTextError as error:
            return _failure(error, index, session_id)
        try:
            batch.submit(request, index, whole)
        except LannerError as error:
            return _failure(error, index, session_id)
        return None

    def _request(self, prompt: Prompt, config: GenerationConfig | None, preprocess: bool) -> _core.GenerationRequest:
        request = native_request(
            prompt, native_config(config), preprocess and not (self._always_raw and isinstance(prompt, str))
        )
        if config is None:
            return request
        if config.response_format is not None and (grammar := grammar_of(config.response_format)) is not None:
            request.set_grammar(self._live().compile_grammar(*grammar))
        if config.output_logits is not None:
            request.logits = _core.Logits.ALL if config.output_logits == "all" else _core.Logits.GENERATED
        return request

    def _response(self, chunk: _core.Chunk, running: Running, index: int, session_id: int) -> Response:
        answer = response_of(chunk, running, index, session_id)
        rows = chunk.take_logits()
        if rows is not None:
            answer.logits = np.reshape(rows, (-1, self._vocab_size))
        return answer

    @staticmethod
    def _config_of(gen_config: GenConfigs, kwargs: Mapping[str, Any]) -> GenConfigs:
        given = dict(kwargs)
        if "request_output_len" in given:
            given["max_new_tokens"] = given.pop("request_output_len")
        if not given:
            return gen_config
        if gen_config is not None:
            raise InvalidArgumentError(f"{', '.join(given)}: give it in gen_config, which is there already")
        try:
            # LMDeploy 0.3 sampled where a call itself said how.
            sampled: dict[str, Any] = {"do_sample": True, "top_k": 40, "top_p": 0.8, **given}
            return GenerationConfig(**sampled)
        except TypeError as error:
            raise InvalidArgumentError(str(error).replace("GenerationConfig.__init__()", "the call")) from None

    @staticmethod
    def _spread(configs: GenConfigs, count: int) -> list[GenerationConfig | None]:
        if configs is None or isinstance(configs, GenerationConfig):
            return [configs] * count
        if not isinstance(cast("object", configs), Sequence):
            raise InvalidArgumentError("gen_config is a GenerationConfig, or a list of them")
        if len(configs) != count:
            raise InvalidArgumentError(f"{len(configs)} gen_configs for {count} prompts")
        return list(configs)

    # Conversations

    def session(self) -> Session:
        """A new conversation, for `chat`.

        >>> pipe.session().history
        []
        """
        return Session(next(self._sessions))

    @overload
    def chat(
        self, prompt: str, session: Session | None = None, gen_config: GenerationConfig | None = None,
        stream_response: Literal[False] = False, adapter_name: str | None = None, **kwargs: Any,
    ) -> Session: ...  # fmt: skip
    @overload
    def chat(
        self, prompt: str, session: Session | None = None, gen_config: GenerationConfig | None = None,
        *, stream_response: Literal[True], adapter_name: str | None = None, **kwargs: Any,
    ) -> Iterator[Response]: ...  # fmt: skip
    def chat(
        self, prompt: str, session: Session | None = None, gen_config: GenerationConfig | None = None,
        stream_response: bool = False, adapter_name: str | None = None, **kwargs: Any,
    ) -> Session | Iterator[Response]:  # fmt: skip
        """Says something in a conversation. What was said before is computed only once (prefix cache).

        Args:
            prompt: what is said.
            session: the conversation; None: a new one.
            stream_response: give the answer's pieces instead of the session, which is complete after the last.

        >>> session = pipe.chat("My name is Ada.", gen_config=GenerationConfig(max_new_tokens=8))
        >>> session = pipe.chat("What is my name?", session, gen_config=GenerationConfig(max_new_tokens=8))
        >>> len(session.history)
        2
        """
        conversation = session or self.session()
        pieces = self._say(conversation, prompt, gen_config, adapter_name, kwargs)
        if stream_response:
            return pieces
        for _ in pieces:
            pass
        return conversation

    def _say(
        self, session: Session, prompt: str, gen_config: GenerationConfig | None, adapter_name: str | None,
        kwargs: Mapping[str, Any],
    ) -> Iterator[Response]:  # fmt: skip
        session.begin(prompt)
        pieces = self._answers([session.messages(prompt)], gen_config, True, adapter_name, kwargs, whole=False)
        try:
            for piece in pieces:
                piece.session_id = session.session_id
                session.take(piece)
                yield piece
                if session.aborted:
                    break
        finally:
            cast("Any", pieces).close()
            session.end()

    # asyncio

    async def generate(
        self, prompt: Prompt, gen_config: GenerationConfig | None = None, do_preprocess: bool = True
    ) -> AsyncIterator[Response]:
        """Pieces of an answer, for ``async for``. Leaving the loop, or cancelling the task, ends the request.

        >>> async def text():
        ...     return "".join([piece.text async for piece in pipe.generate("Hi", GenerationConfig(max_new_tokens=4))])
        >>> isinstance(asyncio.run(text()), str)
        True
        """
        async for piece in self._async_pieces(prompt, gen_config, do_preprocess, whole=False):
            yield piece

    async def async_infer(
        self, prompt: Prompt, gen_config: GenerationConfig | None = None, do_preprocess: bool = True
    ) -> Response:
        """The answer to one prompt, for ``await``; ask for thousands at once with ``asyncio.gather``.

        >>> asyncio.run(pipe.async_infer("Hi", GenerationConfig(max_new_tokens=4))).finish_reason in ("stop", "length")
        True
        """
        pieces = [piece async for piece in self._async_pieces(prompt, gen_config, do_preprocess, whole=True)]
        return pieces[-1]

    async def _async_pieces(
        self, prompt: Prompt, gen_config: GenerationConfig | None, preprocess: bool, whole: bool
    ) -> AsyncIterator[Response]:
        core = self._live()
        session_id = next(self._sessions)
        try:
            if gen_config is not None and gen_config.response_format is not None:  # a grammar takes its time
                request = await asyncio.to_thread(self._request, prompt, gen_config, preprocess)
            else:
                request = self._request(prompt, gen_config, preprocess)
        except BrokenTextError as error:
            yield _failure(error, 0, session_id)
            return
        inbox = self._inbox_of(core, asyncio.get_running_loop())
        try:
            running, queue = inbox.submit(request, whole)
        except LannerError as error:
            yield _failure(error, 0, session_id)
            return
        try:
            final = False
            while not final:
                chunk = await queue.get()
                final = chunk.final
                yield self._response(chunk, running, 0, session_id)
        finally:
            inbox.forget(running)

    def _inbox_of(self, core: _core.Pipeline, loop: asyncio.AbstractEventLoop) -> LoopInbox:
        """That of a loop, which is kept while it has requests under way."""
        inbox = self._inboxes.get(loop)
        if inbox is None:
            inbox = self._inboxes[loop] = LoopInbox(core, loop, lambda: self._inboxes.pop(loop, None))
        return inbox

    # What a model makes of prompts

    def get_ppl(self, input_ids: Sequence[int] | Sequence[Sequence[int]]) -> list[float]:
        """Of each prompt the mean cross-entropy of its tokens, in nats: the logarithm of the perplexity.

        Args:
            input_ids: token ids of one prompt, at least two, or of several.

        >>> pipe.get_ppl(pipe.tokenizer.encode("The capital of France is Paris."))[0] < 5
        True
        """
        return self._live().get_ppl(_lists_of_ids(input_ids))

    def get_logits(self, input_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits of a prompt, (1, tokens, vocabulary); row i predicts what follows token i.

        >>> pipe.get_logits([1, 2, 3]).shape[:2]
        (1, 3)
        """
        return self._live().get_logits(list(input_ids))[np.newaxis]

    def get_embeddings(
        self, prompts: str | Sequence[str] | Sequence[Sequence[int]], pooling: Literal["mean", "last"] = "mean",
        normalize: bool = True,
    ) -> npt.NDArray[np.float32]:  # fmt: skip
        """Hidden states of prompts after the last norm, (prompts, hidden).

        Args:
            prompts: texts, as they are, or lists of token ids.
            pooling: the mean over a prompt's tokens, or the last token's.
            normalize: scale each to length 1.

        >>> vectors = pipe.get_embeddings(["A cat.", "A dog."])
        >>> vectors.shape[0], bool(abs(float((vectors[0] ** 2).sum()) - 1) < 1e-3)
        (2, True)
        """
        core = self._live()
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        ids = [core.encode(text, True) if isinstance(text, str) else list(text) for text in texts]
        return np.array(core.get_embeddings(ids, pooling == "mean", normalize), dtype=np.float32)

    # The pipeline itself

    @property
    def tokenizer(self) -> PipelineTokenizer:
        """The model's tokenizer.

        >>> pipe.tokenizer.decode(pipe.tokenizer.encode("Hello"))
        'Hello'
        """
        return PipelineTokenizer(self._live())

    @property
    def model_name(self) -> str:
        """The last part of the model's path, or of what a hub calls it.

        >>> pipe.model_name != ""
        True
        """
        return self._live().model_name

    @property
    def session_len(self) -> int:
        """Tokens of the longest context, prompt and answer together.

        >>> pipe.session_len > 0
        True
        """
        return self._live().session_len

    def memory_plan(self) -> dict[str, int | str]:
        """Where the memory goes, in bytes: weights, workspace, KV cache, and how many tokens that holds.

        >>> pipe.memory_plan()["kv_tokens"] > 0
        True
        """
        return self._live().memory_plan()

    def stats(self) -> dict[str, int]:
        """Counters since the start, and how many requests run and wait now.

        >>> pipe.stats()["running"]
        0
        """
        return self._live().stats()

    def close(self) -> None:
        """Frees the model and its device. What runs ends with the finish reason "abort". A second call does nothing.

        >>> closed = pipeline(MODEL, TurbomindEngineConfig(session_len=64))
        >>> closed.close()
        """
        self._core.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _live(self) -> _core.Pipeline:
        """The native pipeline; raises where it is closed, or belongs to another process."""
        self._core.check()
        return self._core


class PipelineTokenizer:
    """The tokenizer of an open pipeline; `lanner.Tokenizer` needs no pipeline.

    >>> len(pipe.tokenizer.encode("Hello")) > 0
    True
    """

    def __init__(self, core: _core.Pipeline) -> None:
        self._core = core

    def encode(self, s: str, add_bos: bool = True) -> list[int]:
        """Token ids of a text; ``add_bos``: with what the tokenizer puts around texts."""
        return self._core.encode(s, add_bos)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids."""
        return self._core.decode(list(ids), skip_special_tokens)


def _failure(error: LannerError, index: int, session_id: int) -> Response:
    """The answer to a prompt that cannot be answered; raises what is not that prompt's fault."""
    if error.code not in _OF_ONE_PROMPT:
        raise error
    _logger.warning("prompt %d: %s", index, error)
    return Response("", 0, 0, session_id, "error", index=index, error_code=error.code, error_message=str(error))


def _lists_of_ids(input_ids: Sequence[int] | Sequence[Sequence[int]]) -> list[list[int]]:
    if input_ids and isinstance(input_ids[0], int):
        return [list(cast("Sequence[int]", input_ids))]
    return [list(ids) for ids in cast("Sequence[Sequence[int]]", input_ids)]


_open_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:  # pyright: ignore[reportUnusedFunction]
    for one in list(_open_pipelines):
        one.close()


def pipeline(
    model_path: str,
    backend_config: EngineConfig | str | None = None,
    chat_template_config: ChatTemplateConfig | EngineConfig | None = None,
    log_level: str | ChatTemplateConfig | None = "WARNING",
    max_log_len: int | str | None = None,
    trust_remote_code: bool = False,
    speculative_config: object | None = None,
    allowed_media_domains: object | None = None,
    *,
    model_name: str | None = None,
    tp: int | None = None,
    vision_config: object | None = None,
) -> Pipeline:
    """Opens a model.

    Args:
        model_path: a Hugging Face folder (AWQ and GPTQ too), a GGUF file, or ``ORG/NAME`` on a hub, which is downloaded
            once.
        backend_config: how the engine is set up. A text is LMDeploy 0.3's ``model_name``, behind which
            configuration, chat template and log level follow.
        chat_template_config: a chat template in place of the model's own.
        log_level: of the logger "lanner".
        model_name: a chat template's name, as in LMDeploy 0.3.
        tp: devices that share the model; only 1 in this version.
        max_log_len, trust_remote_code, allowed_media_domains, vision_config: accepted; no code of a model ever runs.

    Raises:
        ModelNotFoundError: there is no such model.
        LannerError: the model cannot be opened; the message says why.

    >>> with pipeline(MODEL, TurbomindEngineConfig(session_len=512)) as pipe:
    ...     pipe.session_len
    512
    """
    if isinstance(backend_config, str) or isinstance(chat_template_config, EngineConfig):
        # LMDeploy 0.3: model_name, backend_config, chat_template_config, log_level
        model_name = backend_config if isinstance(backend_config, str) else model_name
        config = chat_template_config if isinstance(chat_template_config, EngineConfig) else None
        template = log_level if isinstance(log_level, ChatTemplateConfig) else None
        level = max_log_len if isinstance(max_log_len, str) else log_level if isinstance(log_level, str) else "WARNING"
    else:
        config = backend_config
        template, level = chat_template_config, log_level
    if not isinstance(level, str) or not isinstance(cast("object", template), ChatTemplateConfig | None):
        raise InvalidArgumentError("the arguments are model_path, backend_config, chat_template_config, log_level")
    if tp not in (None, 1):
        raise LannerError(f"tp={tp} is not available in this version", "unsupported")
    if speculative_config is not None:
        raise LannerError("speculative decoding is not available in this version", "unsupported")
    _logger.setLevel(level.upper())
    return Pipeline(model_path, config, template or _named_template(model_name))


def _named_template(model_name: str | None) -> ChatTemplateConfig | None:
    if model_name is None:
        return None
    return ChatTemplateConfig(model_name)
