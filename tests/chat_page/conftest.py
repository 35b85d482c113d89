"""The page at /chat in Chromium, without a window.

The browser is Debian's (`apt-get install chromium`), or the one that LANNER_TEST_CHROMIUM names. Where there is none,
nothing runs, and the exit code 77 tells CTest so.
"""

import json
import os
import shutil
import time

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("LANNER_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def pytest_sessionstart(session):
    if not CHROMIUM:
        pytest.exit("DID NOT RUN: the tests of the chat page need Chromium, and there is none (apt-get install chromium)",
                    returncode=77)


@pytest.fixture(scope="session")
def probe(start_probe):
    return start_probe("--answer", "Hello **world**")


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


class Chat:
    """A browser of its own (storage and all) with the page open in it."""

    def __init__(self, context, server):
        self.context = context
        self.server = server
        self.complaints = []  # of the browser: errors of the script, and what the policy forbade
        self.requests = []
        self.page = None
        self.open()

    def open(self, path="/chat"):
        """A new tab."""
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.goto(self.server.url + path)
        return self.page

    def send(self, text):
        self.page.fill("#message", text)
        self.page.click("#send")

    def wait(self):
        """Until no answer is under way."""
        self.page.wait_for_selector("#send:not([hidden])")

    def ask(self, text):
        self.send(text)
        self.wait()

    def until(self, expression, seconds=20):
        """Until this JavaScript is true. (Playwright's own waiting would need what the page's policy forbids.)"""
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def texts(self):
        return [body.inner_text() for body in self.page.query_selector_all(".message .body")]

    def titles(self):
        return [button.inner_text() for button in self.page.query_selector_all("#chats .open")]

    def bodies(self):
        """What was asked of the server."""
        return [json.loads(request.post_data) for request in self.requests if request.url.endswith("/v1/chat/completions")]

    def show(self, *messages):
        """A conversation as if it had been held."""
        chat = {"id": "made", "title": "made", "updated": 1,
                "messages": [{"role": role, "content": content} for role, content in messages]}
        self.page.evaluate("chat => localStorage.setItem('lanner.chat.made', JSON.stringify(chat))", chat)
        self.page.goto("about:blank")
        self.page.goto(self.server.url + "/chat#made")
        self.page.wait_for_selector(".message")


@pytest.fixture
def open_chat(browser):
    contexts = []

    def start(server, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options}))
        return Chat(contexts[-1], server)

    yield start
    for context in contexts:
        context.close()


@pytest.fixture
def chat(open_chat, probe):
    """The page over the scripted engine; a test fails when the browser complained."""
    made = open_chat(probe)
    yield made
    assert made.complaints == []
