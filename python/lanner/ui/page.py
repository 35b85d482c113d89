"""The page: a chat for each visitor, made with Gradio 6."""

from __future__ import annotations

import atexit
import functools
import importlib
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from lanner.ui.chat_client import ChatClient, Settings, is_loopback
from lanner.ui.chat_text import markdown, plain
from lanner.ui.conversation import Conversation
from lanner.ui.guard import Guard

_CHAT_PIXELS = 500
_STYLE = """
.heading h1 { font-size: 1.6rem; margin: 0; }
.heading p { margin: 0; opacity: 0.7; overflow-wrap: anywhere; }
/* Gradio's own button to clear the chat area: there is Reset. */
#chat [aria-label="Clear"] { display: none; }
"""


@dataclass(frozen=True)
class Place:
    """Where the page is: an address of this machine, a port, whether it is shared, and who may come (empty: all).

    >>> Place("127.0.0.1", 6006).share
    False
    """

    host: str
    port: int
    share: bool = False
    users: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


def shown(conversation: Conversation) -> list[dict[str, Any]]:
    """A conversation as messages of Gradio's chat area.

    >>> shown(Conversation())
    []
    """
    messages: list[dict[str, Any]] = []

    def add(role: str, text: str, title: str = "") -> None:
        # As a list: Gradio would take the indentation out of a plain string.
        message: dict[str, Any] = {"role": role, "content": [{"type": "text", "text": text}]}
        messages.append({**message, "metadata": {"title": title}} if title else message)

    for turn in conversation.turns:
        add("user", plain(turn.question))
        if turn.thoughts:
            add("assistant", markdown(turn.thoughts), "Thoughts")
        note = f"*{plain(turn.note)}*" if turn.note else ""
        waiting = conversation.busy and turn is conversation.turns[-1] and not turn.thoughts
        answer = "\n\n".join(part for part in (markdown(turn.answer), note) if part) or ("…" if waiting else "")
        if answer:
            add("assistant", answer)
    return messages


@functools.cache
def load_gradio() -> Any:
    """Gradio, which then tells nobody that it is used, and leaves no file behind. Takes seconds the first time."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Its own folder would be one for all users of this machine.
    folder = tempfile.mkdtemp(prefix="lanner-gradio-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder
    # It calls its own address once, and a proxy of the environment does not lead there.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost,127.0.0.1,::1"]))
    return importlib.import_module("gradio")


def _limited(value: object, low: float, high: float) -> float:
    """A slider's value; what a visitor sends need not be what the slider allows."""
    return min(max(float(value), low), high) if isinstance(value, int | float) else low


class Page:
    """The page over one server and one of its models; `open` shows it to the network, `close` ends it."""

    def __init__(self, client: ChatClient, model: str) -> None:
        self._gradio: Any = load_gradio()
        self._client = client
        self._model = model
        self._blocks: Any = self._build()

    def _build(self) -> Any:
        gr = self._gradio
        with gr.Blocks(title="Lanner Playground", analytics_enabled=False) as blocks:
            conversation = gr.State(Conversation())
            gr.Markdown(f"# Lanner Playground\n\n{plain(self._model)}", elem_classes="heading", latex_delimiters=[])
            chat = gr.Chatbot(
                height=_CHAT_PIXELS,
                show_label=False,
                latex_delimiters=[],
                allow_tags=False,
                buttons=[],
                feedback_options=None,
                elem_id="chat",
            )
            instruction = gr.Textbox(
                label="Instruction",
                placeholder="Please input the instruction",
                lines=1,
                max_lines=8,
                submit_btn=True,
                elem_id="instruction",
            )
            with gr.Row():
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel", min_width=120)
                reset = gr.Button("Reset", elem_id="reset", min_width=120)
            with gr.Row():
                sliders = [
                    gr.Slider(1, 2048, value=512, step=1, label="Maximum new tokens", min_width=200),
                    gr.Slider(0.01, 1, value=0.8, step=0.01, label="Top_p", min_width=200),
                    gr.Slider(0.01, 1.5, value=0.7, step=0.01, label="Temperature", min_width=200),
                ]
            hidden = {"show_progress": "hidden", "api_visibility": "private"}
            instruction.submit(
                self._send,
                [conversation, instruction, *sliders],
                [instruction, chat, cancel],
                concurrency_limit=None,
                **hidden,
            )
            cancel.click(self._cancel, [conversation], None, queue=False, **hidden)
            gr.on([reset.click, chat.clear], self._reset, [conversation], [instruction, chat], queue=False, **hidden)
        return blocks.queue(default_concurrency_limit=None, api_open=False)

    async def _send(
        self, conversation: Conversation, question: str, max_tokens: object, top_p: object, temperature: object
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Shows the answer to a question as it comes."""
        gr = self._gradio
        if not question.strip() or conversation.busy:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        settings = Settings(
            max_tokens=int(_limited(max_tokens, 1, 2048)),
            top_p=_limited(top_p, 0.01, 1),
            temperature=_limited(temperature, 0.01, 1.5),
        )
        text: Any = ""  # the box is emptied once; what is typed meanwhile stays
        answer = conversation.ask(self._client, self._model, question, settings)
        try:
            async for _ in answer:
                yield text, shown(conversation), gr.Button(interactive=conversation.busy)
                text = gr.skip()
        finally:
            await answer.aclose()

    async def _cancel(self, conversation: Conversation) -> None:
        conversation.cancel()

    async def _reset(self, conversation: Conversation) -> tuple[str, list[dict[str, Any]]]:
        conversation.reset()
        return "", shown(conversation)

    def open(self, place: Place) -> str:
        """Answers requests from now on, in threads of its own; returns the address for others where it is shared.

        Raises:
            OSError: the port is taken.
        """
        gr = self._gradio
        middleware: Any = importlib.import_module("starlette.middleware").Middleware
        hosts = ["localhost", "127.0.0.1", "::1", place.host] if is_loopback(place.host) and not place.share else None
        _, _, shared = self._blocks.launch(
            server_name=f"[{place.host}]" if ":" in place.host else place.host,
            server_port=place.port,
            share=place.share,
            auth=place.users or None,
            quiet=True,
            prevent_thread_lock=True,
            inbrowser=False,
            footer_links=[],
            enable_monitoring=False,
            max_file_size=1,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            app_kwargs={"middleware": [middleware(Guard, hosts=hosts)]},
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=_STYLE,
        )
        return shared or ""

    def close(self) -> None:
        """Ends the answers that are under way and frees the port."""
        server = getattr(self._blocks, "server", None)
        if server is not None:
            # Pages that are open keep a stream each. They are cut off, and nobody needs to be told.
            server.config.timeout_graceful_shutdown = 1
            logging.getLogger("uvicorn.error").disabled = True
        self._blocks.close(verbose=False)
        for tunnel in importlib.import_module("gradio.tunneling").CURRENT_TUNNELS:
            tunnel.kill()
