"""What visitors do on the page of `lanner serve gradio`, in Chromium, over a scripted server and a real one."""

import os
import re
import textwrap
import time

import pytest

from gradio_page import CHROMIUM, Scripted, Ui, Visitor, missing, wait_for

if missing(browser=True):
    pytest.skip(missing(browser=True), allow_module_level=True)

from playwright.sync_api import sync_playwright

HOSTILE = """<img src=x onerror="window.hit=1"><script>window.hit=2</script> <svg onload="window.hit=3">
<iframe srcdoc="<script>parent.hit=4</script>"></iframe> <style>*{display:none}</style> <form action="//elsewhere.example">
[a](javascript:window.hit=5) [b]( JaVaScRiPt:window.hit=6) [c](data:text/html,<script>1</script>) [d][e]
![p](https://elsewhere.example/leak.png) &lt;b&gt; <javascript:window.hit=7> `<i>x</i>` ``<u>` and <s>
$$<img src=y onerror="window.hit=8">$$ <details open ontoggle=window.hit=9>

[e]: javascript:window.hit=10

```mermaid
graph TD; A["<img src=x onerror=window.hit=11>"]
```
```"><img src=x onerror=window.hit=12>
</code></pre><script>window.hit=13</script> $$ <b>in code</b> $$
````
~~~html
<b>second</b>
~~~
> ```
> <em>quoted</em>
- ```
  <ins>listed</ins>

    <mark>indented</mark>
| <b onmouseover=window.hit=14>x</b> | y |
|---|---|
| <style>*{display:none}</style> | [i](javascript:window.hit=15) |"""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    contexts = []

    def start(ui, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        return Visitor(contexts[-1], ui.url)

    yield start
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def server():
    started = Scripted()
    yield started
    started.end()


@pytest.fixture(scope="module")
def ui(server):
    started = Ui(server.url)
    yield started
    assert started.stop() == 0
    assert started.stderr() == ""


@pytest.fixture
def visitor(visit, ui):
    made = visit(ui)
    yield made
    assert made.complaints == []
    assert all(url.startswith((ui.url, "data:", "blob:")) for url in made.requests), made.requests


def test_the_page(visitor):
    page = visitor.page
    assert page.title() == "Lanner Playground"
    assert page.inner_text("h1") == "Lanner Playground"
    assert page.inner_text(".heading p") == "org/model <b>1</b> ${1+1}"
    assert page.locator("#chat").bounding_box()["height"] == pytest.approx(500, abs=2)
    assert page.get_by_label("Instruction").get_attribute("placeholder") == "Please input the instruction"
    assert page.is_disabled("#cancel") and page.is_enabled("#reset")
    for label, low, high, value in [("Maximum new tokens", "1", "2048", "512"), ("Top_p", "0.01", "1", "0.8"),
                                    ("Temperature", "0.01", "1.5", "0.7")]:
        slider = page.locator(f"input[type=range][aria-label*='{label}']")
        assert (slider.get_attribute("min"), slider.get_attribute("max"), slider.input_value()) == (low, high, value)


def test_a_conversation_is_sent_whole_with_the_settings(visitor, server):
    visitor.ask("One")
    visitor.set("Maximum new tokens", 7)
    visitor.ask("Two\n  lines")
    assert visitor.questions()[0] == "One" and visitor.answers()[0] == "Echo: One"
    first, second = server.asked[-2:]
    assert first == {"model": "org/model <b>1</b> ${1+1}", "messages": [{"role": "user", "content": "One"}], "stream": True,
                     "max_tokens": 512, "top_p": 0.8, "temperature": 0.7}
    assert second["max_tokens"] == 7
    assert second["messages"] == [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Echo: One"},
                                  {"role": "user", "content": "Two\n  lines"}]


def test_two_visitors_at_once(visit, ui, server):
    server.gate.clear()
    one, two = visit(ui), visit(ui)
    one.send("wait")
    wait_for(lambda: one.answer() == "begun")
    two.ask("Mine")  # while the other's answer is under way
    assert (two.questions(), two.answers()) == (["Mine"], ["Echo: Mine"])
    assert one.answers() == ["begun"] and not one.idle()
    server.gate.set()
    wait_for(one.idle)
    assert (one.questions(), one.answers()) == (["wait"], ["begun ended"])
    one.ask("More")
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["wait", "begun ended", "More"]
    two.ask("More")
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["Mine", "Echo: Mine", "More"]


def test_a_wait_is_seen(visitor, server):
    server.gate.clear()
    visitor.send("silent")
    wait_for(lambda: visitor.answers() == ["…"])
    server.gate.set()
    wait_for(lambda: visitor.idle() and visitor.answers() == ["ended"])


def test_what_is_typed_meanwhile_stays(visitor, server):
    server.gate.clear()
    visitor.send("wait")
    wait_for(lambda: visitor.answer() == "begun")
    visitor.page.fill("#instruction textarea", "Next")
    visitor.page.press("#instruction textarea", "Enter")  # too early
    server.gate.set()
    wait_for(visitor.idle)
    assert visitor.page.input_value("#instruction textarea") == "Next"
    assert visitor.questions() == ["wait"]
    visitor.page.press("#instruction textarea", "Enter")
    wait_for(lambda: visitor.answers() == ["begun ended", "Echo: Next"])


def test_cancel_keeps_what_was_said_and_leaves_the_server(visitor, server):
    left = server.left
    visitor.send("endless")
    wait_for(lambda: "on on" in visitor.answer())
    assert not visitor.idle()
    visitor.page.click("#cancel")
    wait_for(visitor.idle)
    kept = visitor.answer()
    assert kept.startswith("on on") and kept.endswith("Cancelled.")
    wait_for(lambda: server.left == left + 1)
    time.sleep(0.2)
    assert visitor.answer() == kept
    visitor.ask("More")
    said = [message["content"] for message in server.asked[-1]["messages"]]
    assert said[0] == "endless" and said[1].startswith("on on") and "Cancelled" not in said[1] and said[2] == "More"


def test_reset_forgets(visitor, server):
    visitor.ask("One")
    visitor.page.click("#reset")
    wait_for(lambda: visitor.questions() == [])
    left = server.left
    visitor.send("endless")
    wait_for(lambda: "on" in visitor.answer())
    visitor.page.click("#reset")
    wait_for(lambda: visitor.idle() and visitor.questions() == [] and server.left == left + 1)
    visitor.ask("New")
    assert visitor.answers() == ["Echo: New"]
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["New"]


def test_a_visitor_who_leaves_ends_the_answer(visit, ui, server):
    left = server.left
    visitor = visit(ui)
    visitor.send("endless")
    wait_for(lambda: "on" in visitor.answer())
    visitor.page.close()
    wait_for(lambda: server.left == left + 1)


@pytest.mark.parametrize("question, kept, line", [
    ("busy", "", "Error: the server has too much to do, try again: Too many requests."),
    ("long", "", "Error: too long for the model, Reset begins anew: The prompt has 9000 tokens, more than 8192."),
    ("garbage", "", "Error: the server says 500: no reason given"),
    ("fail", "before\n\n", "Error: the server failed: The engine <b>failed</b>."),
    ("break", "before\n\n", "Error: the server at HOST broke off")])
def test_an_error_is_a_line_and_the_next_message_works(visitor, server, question, kept, line):
    visitor.ask(question)
    assert visitor.answer() == kept + line.replace("HOST", server.url[7:])
    visitor.ask("More")
    assert visitor.answer() == "Echo: More"
    said = [message["content"] for message in server.asked[-1]["messages"]]
    assert said == ([question, "before", "More"] if kept else ["More"])


def test_a_server_that_goes_and_comes_back(visit, open_ui):
    server = Scripted()
    ui = open_ui(server.url)
    visitor = visit(ui)
    server.end()
    visitor.ask("Hello")
    assert visitor.answer() == f"Error: the server at 127.0.0.1:{server.server_port} cannot be reached: connection refused"
    again = Scripted(server.server_port)
    visitor.ask("Hello")
    assert visitor.answer() == "Echo: Hello"
    again.end()
    assert ui.stop() == 0


def test_thoughts_are_apart(visitor, server):
    visitor.ask("think")
    assert visitor.answer() == "Well"
    assert "Thoughts" in visitor.page.inner_text("#chat")
    visitor.ask("More")
    assert server.asked[-1]["messages"][1] == {"role": "assistant", "content": "Well"}


def test_hostile_text_stays_text(visitor, server):
    server.say = {HOSTILE: HOSTILE}
    visitor.page.fill("#instruction textarea", HOSTILE)
    visitor.page.press("#instruction textarea", "Enter")
    wait_for(lambda: visitor.idle() and len(visitor.answers()) == 1 and "[i]" in visitor.answer())
    page = visitor.page
    assert visitor.questions()[0].replace("\xa0", " ") == HOSTILE
    inside = "#chat [data-testid] .md"
    for kind in ["img", "script", "iframe", "style", "form", "details", "b", "i", "u", "s", "em", "ins", "mark", "svg:not([aria-hidden]):not(button svg)",
                 "[onerror], [onload], [onmouseover], [ontoggle]", ".mermaid", ".katex"]:
        assert page.locator(f"{inside} :is({kind})").count() == 0, kind
    assert all(re.match("https?://", link.get_attribute("href")) for link in page.locator(f"{inside} a").all())
    for text in ['<img src=x onerror="window.hit=1">', "[a](javascript:window.hit=5)", "&lt;b&gt;", "<i>x</i>", "<em>quoted</em>",
                 "</code></pre><script>window.hit=13</script>", "<b>second</b>", "![p](https://elsewhere.example/leak.png)"]:
        assert text in visitor.answer(), text
    time.sleep(0.3)
    assert page.evaluate("window.hit") is None


MARKDOWN = [
    ("a **b** *c* `d<e>*f*`", "<p>a <strong>b</strong> <em>c</em> <code>d&lt;e&gt;*f*</code></p>"),
    ("- a\n- b\n\n1. c", "<ul><li>a</li><li>b</li></ul><ol><li>c</li></ol>"),
    ("# A\nx < 1 & y", "<h1>A</h1><p>x &lt; 1 &amp; y</p>"),
    ("| a | `b|c` |\n|---|---|\n| 1 | 2 |", "<td>1</td><td>2</td>"),
]


@pytest.mark.parametrize("text, html", MARKDOWN, ids=range(len(MARKDOWN)))
def test_markdown(visitor, server, text, html):
    server.say = {"show": text}
    visitor.ask("show")
    shown = visitor.page.locator("[data-testid=bot] .md").inner_html()
    assert html in re.sub(r"\s*\n\s*|<!--.*?-->", "", shown)


def test_code_and_links(visitor, server):
    code = "if a < b && c:\n\n  print('```')\n    x = \"<b>\" &amp; '$$'"
    listed = textwrap.indent(code, "   ")
    server.say = {"show": f"Look:\n1. first\n   ````python\n{listed}\n   ````\n2. [a](https://x.example/?a=1&b=2) and https://y.example/?c=3&d=4"
                  "\n\u2028\u0085end"}
    visitor.ask("show")
    assert visitor.page.locator("#chat .md pre code").evaluate("e => e.textContent").rstrip("\n") == code
    links = visitor.page.locator("#chat .md a")
    assert [link.get_attribute("href") for link in links.all()] == ["https://x.example/?a=1&b=2", "https://y.example/?c=3&d=4"]
    assert visitor.answer().rstrip().endswith("end")


def test_a_phone(visit, ui):
    phone = visit(ui, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    phone.page.fill("#instruction textarea", "x" * 200)
    phone.page.tap("#instruction button")
    wait_for(lambda: phone.answer() == "Echo: " + "x" * 200)
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_password(visit, server, browser, open_ui):
    ui = open_ui(server.url, "--auth", "ann:a:b", "--auth", "bob:b")
    context = browser.new_context()
    page = context.new_page()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    assert page.goto(ui.url + "/config").status == 401
    page.goto(ui.url)
    for password in ["b", "a:b"]:
        page.get_by_label("username").fill("ann")
        page.get_by_label("password").fill(password)
        page.get_by_role("button", name="Login").click()
        if password == "b":
            page.wait_for_selector("text=Incorrect Credentials")
    page.wait_for_selector("#instruction textarea")
    assert all(url.startswith((ui.url, "data:", "blob:")) for url in requests)
    context.close()
    assert ui.stop() == 0


def running(server):
    return int(re.search(rb"num_requests_running\S* (\d+)", server.ask("/metrics")[2])[1])


def test_the_real_server(visit, real, open_ui):
    ui = open_ui(real.url)
    visitor = visit(ui)
    assert visitor.page.inner_text(".heading p") == "small"
    visitor.set("Temperature", 0.01)
    visitor.send("Write a very long story about a dragon, with many chapters.")
    seen = set()
    while not visitor.idle() and len(seen) < 5:
        seen.add(visitor.answer())
    assert len(seen) == 5, "the answer did not grow"
    visitor.page.click("#cancel")
    wait_for(visitor.idle)
    assert visitor.answer().endswith("Cancelled.")
    wait_for(lambda: running(real) == 0)
    visitor.page.click("#reset")
    wait_for(lambda: visitor.answers() == [])
    visitor.ask("What is the capital of France?")
    assert "Paris" in visitor.answer()
    visitor.ask("word " * 2000)  # the context has 1024 tokens
    assert visitor.answer().startswith("Error: too long for the model, Reset begins anew: ")
    visitor.ask("And once more: what is the capital of France?")
    assert "Paris" in visitor.answer()
    assert ui.stop() == 0
