"""What the page does with hostile text, on narrow screens, by keyboard, and for those who hear it."""

import re
import time

import pytest

from test_chat_page import PHONE, SLOW

HOSTILE = """<img src=x onerror="window.hit=1"><script>window.hit=2</script>
<iframe srcdoc="<script>parent.hit=3</script>"></iframe> <svg onload="window.hit=4">
[a](javascript:window.hit=5) [b](  JaVaScRiPt:window.hit=6) [c](data:text/html,<script>1</script>) [d](vbscript:x)
[e](java&#10;script:window.hit=7) [f](//elsewhere.example/x) [g](/terminate) <javascript:window.hit=8>
![picture](https://elsewhere.example/leak.png) ![](http://elsewhere.example/leak2.png "t")
[h](https://elsewhere.example/"onmouseover="window.hit=9) <a href="javascript:window.hit=10">x</a>

```"><img src=x onerror=window.hit=11>
</code></pre><script>window.hit=12</script>
```

| <b onmouseover=window.hit=13>x</b> | y |
|---|---|
| <style>*{display:none}</style> | [i](javascript:window.hit=14) |
"""


def test_hostile_text_stays_text(chat):
    chat.show(("user", HOSTILE), ("assistant", HOSTILE))
    for link in chat.page.query_selector_all(".body a"):
        assert link.get_attribute("href").startswith(("http://elsewhere.example/", "https://elsewhere.example/"))
        assert set(link.evaluate("e => e.getAttributeNames()")) == {"href", "target", "rel"}
    assert chat.page.evaluate("document.querySelectorAll('.body :is(img, script, iframe, svg[onload], style, b)').length") == 0
    answer = chat.texts()[1]
    for text in ['<img src=x onerror="window.hit=1">', "[a](javascript:window.hit=5)", "[g](/terminate)", "<style>", "</code></pre>"]:
        assert text in answer
    assert chat.texts()[0] == HOSTILE.strip() or chat.texts()[0] == HOSTILE
    time.sleep(0.3)
    assert chat.page.evaluate("window.hit") is None
    assert all(request.url.startswith((chat.server.url, "data:", "about:")) for request in chat.requests)


def test_hostile_text_from_the_server(open_chat, start_probe):
    chat = open_chat(start_probe("--answer", HOSTILE))
    chat.ask(HOSTILE)
    assert '<img src=x onerror="window.hit=1">' in chat.texts()[1]
    assert chat.titles()[0].startswith("<img src=x")
    assert chat.page.evaluate("window.hit") is None
    assert chat.complaints == []


def test_the_policy_forbids_what_the_page_does_not_do(chat):
    policy = chat.server.ask("/chat")[1]["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "trusted-types 'none'" in policy
    html = chat.server.ask("/chat")[2].decode()
    assert not re.search(r'(src|href)="(?!#|data:)', html), "the page refers to another file"
    chat.page.evaluate("""() => {
      const script = document.createElement('script');
      try { script.textContent = 'window.hit = 1'; document.body.append(script); } catch {}
      try { document.body.insertAdjacentHTML('beforeend', '<b id="made">x</b>'); } catch {}
    }""")
    assert chat.page.evaluate("window.hit") is None and chat.page.query_selector("#made") is None
    chat.complaints.clear()  # the browser said so


MARKDOWN = [
    ("a *b* **c** ***d*** ~~e~~ `f*g*`", "<p>a <em>b</em> <strong>c</strong> <em><strong>d</strong></em> <s>e</s> <code>f*g*</code></p>"),
    ("snake_case_name 2*3*4 a * b", "<p>snake_case_name 2<em>3</em>4 a * b</p>"),
    ("**not closed and \\*escaped\\*", "<p>**not closed and *escaped*</p>"),
    ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
    ("# A\n### B ##\n#no", "<h2>A</h2><h4>B</h4><p>#no</p>"),
    ("- a\n- b\n  - c\n\n1. x\n2. y", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><ol><li>x</li><li>y</li></ol>"),
    ("3. x\n   more\n\n4. y", '<ol start="3"><li><p>x<br>more</p></li><li><p>y</p></li></ol>'),
    ("- a\n\n  second", "<ul><li>a<p>second</p></li></ul>"),
    ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
    ("a\n\n---\nb", "<p>a</p><hr><p>b</p>"),
    ("``a ` b`` and `open", "<p><code>a ` b</code> and `open</p>"),
    ("x<br>y &amp; <b>z</b>", "<p>x<br>y &amp;amp; &lt;b&gt;z&lt;/b&gt;</p>"),
    ("\\(a_b\\) and \\[c\\]", "<p>\\(a_b\\) and \\[c\\]</p>"),
    ("[a **b**](https://x.example/y_z) c", '<p><a href="https://x.example/y_z" target="_blank" rel="noopener noreferrer nofollow">a <strong>b</strong></a> c</p>'),
    ("see https://x.example/a_b.", '<p>see <a href="https://x.example/a_b" target="_blank" rel="noopener noreferrer nofollow">https://x.example/a_b</a>.</p>'),
    ("[no](ftp://x) [yes", "<p>[no](ftp://x) [yes</p>"),
]


@pytest.mark.parametrize("text, html", MARKDOWN, ids=range(len(MARKDOWN)))
def test_markdown(chat, text, html):
    chat.show(("user", "x"), ("assistant", text))
    assert chat.page.inner_html(".answer .body") == html


def test_tables_tasks_and_code(chat):
    code = "int x = 1; // <b>\n\n  return \"a\\\"b\";"
    chat.show(("user", "x"), ("assistant", f"| a | b |\n|:-:|--:|\n| 1 \\| 2 | `x|y` |\n\n- [x] done\n- [ ] open\n\n```c\n{code}\n```"))
    assert chat.page.eval_on_selector_all(".body td", "cells => cells.map(c => [c.className, c.innerText])") == [
        ["center", "1 | 2"], ["right", "x|y"]]
    assert chat.page.eval_on_selector_all(".body input", "boxes => boxes.map(b => b.checked)") == [True, False]
    assert chat.page.eval_on_selector(".body pre", "e => e.textContent") == code
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.page.click("[aria-label='Copy this code']")
    chat.until("document.querySelector('#announcer').textContent === 'Copied'")
    assert chat.page.evaluate("navigator.clipboard.readText()") == code


@pytest.mark.parametrize("text", ["*" * 60_000, "*a " * 30_000, "a**b" * 20_000, "[" * 60_000, "[](" * 30_000, "`" * 60_000,
                                  "".join("`" * n + " " for n in range(400)), "> " * 30_000, "_a_*b " * 20_000, "|" * 60_000,
                                  "- " * 30_000, "http://" * 20_000, "![a](b " * 20_000, "```js\n" + "\"\\" * 18_000, "~" * 60_000,
                                  "# " + " #" * 30_000 + "x", "|a" * 200 + "\n" + "|-" * 200 + ("\n" + "|b" * 200) * 100],
                         ids=range(17))
def test_no_text_takes_long(chat, text):
    begin = time.monotonic()
    chat.show(("user", "x"), ("assistant", text))
    chat.until("document.querySelector('.answer .body').children.length > 0")
    assert time.monotonic() - begin < 8


def test_a_stored_conversation_of_another_kind_is_left_alone(chat):
    chat.page.evaluate("""() => {
      localStorage.setItem('lanner.chat.a', '{"id": "a"');
      localStorage.setItem('lanner.chat.b', '{"id": "b", "title": 5, "messages": {}}');
      localStorage.setItem('lanner.settings', '[1');
    }""")
    chat.page.reload()
    chat.ask("Hi")
    assert chat.titles() == ["Hi"]


LONG = ("A" * 300 + "\n\n```\n" + "x = " * 100 + "\n```\n\n|" + " wide column |" * 12 + "\n|" + "---|" * 12 + "\n|" + " value |" * 12 +
        "\n\nhttps://x.example/" + "a" * 200 + "\n\n- - - " + "`" + "b" * 200 + "`")


def test_a_phone_shows_everything_without_scrolling_sideways(open_chat, probe):
    chat = open_chat(probe, **PHONE)
    chat.show(("user", LONG), ("assistant", LONG))

    def sideways():
        return chat.page.evaluate("""() => Math.max(document.documentElement.scrollWidth - innerWidth,
          document.querySelector('#scroller').scrollWidth - document.querySelector('#scroller').clientWidth)""")

    assert sideways() <= 0
    assert chat.page.eval_on_selector(".answer pre", "e => e.scrollWidth > e.clientWidth"), "long code scrolls by itself"
    chat.page.click("#open-settings")
    assert sideways() <= 0
    chat.page.click("text=Done")
    # The list is a drawer over the page.
    assert not chat.page.is_visible("#sidebar")
    chat.page.click("#open-sidebar")
    assert chat.page.is_visible("#sidebar") and sideways() <= 0
    chat.page.keyboard.press("Escape")
    assert not chat.page.is_visible("#sidebar")
    chat.page.click("#open-sidebar")
    chat.page.click("#new-chat")
    assert not chat.page.is_visible("#sidebar")
    chat.ask("Hi")
    assert chat.texts() == ["Hi", "Hello world"]
    assert chat.complaints == []


def test_keyboard(chat):
    page = chat.page
    assert page.evaluate("document.activeElement.id") == "message"
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    chat.wait()
    assert chat.texts()[0] == "One\ntwo"
    assert page.evaluate("document.activeElement.id") == "message"
    page.reload()
    page.evaluate("""() => {
      window.getSelection().removeAllRanges();
      document.activeElement.blur();
      document.querySelector('.skip').focus();
    }""")
    order = ["To the message box"]
    for _ in range(13):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"))
    wanted = ["To the message box", "Hide conversations", "New conversation", "One", "Rename One", "Delete One", "Settings",
              "Switch between light and dark", "Conversation", "Copy your message", "Edit your message", "Copy this answer",
              "Answer again"]
    assert order[:13] == wanted
    assert page.evaluate("document.activeElement.id") == "message"


def test_everything_has_a_name(chat):
    chat.ask("Hi")
    chat.show(("user", "x"), ("assistant", "```c\nx\n```\n\n- [ ] a"))
    nameless = chat.page.evaluate("""() => [...document.querySelectorAll('button, input, textarea, select, [role=region]')]
      .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length) && !e.closest('#toast'))
      .map((e) => e.outerHTML)""")
    assert nameless == []
    assert chat.page.get_attribute("html", "lang") == "en"
    assert chat.page.locator("h1").count() == 1 and chat.page.locator("main").count() == 1


def test_screen_readers_hear_what_happens(chat):
    chat.send(SLOW)
    chat.until("document.querySelector('#announcer').textContent === 'The model is answering'")
    assert chat.page.get_attribute(".answer", "aria-busy") == "true"
    chat.wait()
    chat.until("document.querySelector('#announcer').textContent.startsWith('Answer: one two')")
    assert chat.page.get_attribute(".answer", "aria-busy") == "false"


def luminance(chat):
    red, green, blue = map(int, re.findall(r"\d+", chat.page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])
    return (red + green + blue) / 3


def test_dark_and_light(open_chat, probe):
    chat = open_chat(probe, color_scheme="dark")
    assert luminance(chat) < 60
    chat.page.click("#switch-theme")
    assert luminance(chat) > 200
    chat.page.reload()
    assert luminance(chat) > 200
    chat.page.click("#open-settings")
    chat.page.select_option("#theme", "")
    chat.page.click("text=Done")
    assert luminance(chat) < 60
    assert chat.complaints == []


def test_the_end_stays_in_sight_until_one_scrolls_up(chat):
    text = "[slow] [say " + "\n\n".join("line" for _ in range(12)) + "]"
    chat.show(("user", "x"), ("assistant", "\n\n".join(f"line {n}" for n in range(80))))
    at_end = "(() => { const s = document.querySelector('#scroller'); return s.scrollHeight - s.scrollTop - s.clientHeight < 40; })()"
    assert chat.page.evaluate(at_end)
    chat.send(text)
    time.sleep(0.5)
    assert chat.page.evaluate(at_end)
    chat.page.hover("#scroller")
    chat.page.mouse.wheel(0, -600)
    chat.page.wait_for_selector("#to-end:not([hidden])")
    time.sleep(0.4)
    assert not chat.page.evaluate(at_end)
    chat.page.click("#to-end")
    assert chat.page.evaluate(at_end)
    chat.page.keyboard.press("Escape")
