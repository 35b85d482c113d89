"""``lanner serve gradio``: a page to chat on, made with Gradio (``pip install 'lanner[ui]'``).

``command`` reads the command line, ``native_server`` runs a model's server, ``chat_client`` talks to it,
``conversation`` keeps what was said, ``chat_text`` makes it safe to show, and ``page`` is the page, behind ``guard``.
"""
