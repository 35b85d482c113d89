"""What a person does on the page at /chat: sends, stops, asks again, edits, comes back."""

import re
import time

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
SLOW = "[slow] [say one two three four five six seven eight nine ten eleven twelve thirteen]"  # about 1.5 s


def figure(server, name):
    text = server.ask("/metrics")[2].decode().replace('model_name="test",', "")
    return int(re.search(re.escape(name) + r"\S* (\d+)", text)[1])


def wait_for(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_answer_comes_with_its_figures(chat):
    chat.ask("Hi there")
    assert chat.texts() == ["Hi there", "Hello world"]
    assert chat.page.inner_html(".answer .body") == "<p>Hello <strong>world</strong></p>"
    assert re.match(r"16 tokens · \d[\d.]* tokens/s · first after \d\.\d\d s$", chat.page.inner_text(".stats"))
    assert chat.page.inner_text("#model") == "test"
    assert chat.bodies()[0]["messages"] == [{"role": "user", "content": "Hi there"}]


def test_an_answer_grows_while_it_comes(chat):
    chat.send(SLOW)
    seen = set()
    while chat.page.is_visible("#stop"):
        seen.add(chat.texts()[-1])
        time.sleep(0.03)
    assert len(seen) > 5
    assert chat.texts()[-1].endswith("twelve thirteen")


def test_the_conversation_is_sent_whole(chat):
    chat.ask("One")
    chat.ask("Two")
    assert [message["content"] for message in chat.bodies()[1]["messages"]] == ["One", "Hello **world**", "Two"]


def test_stop_ends_the_answer_at_the_server_too(open_chat, start_probe):
    server = start_probe()
    chat = open_chat(server)
    for count, end in enumerate([lambda: chat.page.click("#stop"), lambda: chat.page.keyboard.press("Escape")], 1):
        chat.send("[slow] [endless]")
        chat.until("document.querySelector('.message:last-child .body').innerText.length > 3")
        end()
        chat.wait()
        kept = chat.texts()[-1]
        assert kept.startswith("Hell")
        assert chat.page.inner_text(".message:last-child .remark") == "Stopped."
        wait_for(lambda: figure(server, 'success_total{finished_reason="abort"}') == count)
        time.sleep(0.2)
        assert chat.texts()[-1] == kept
    assert figure(server, "num_requests_running") == 0
    # A stopped answer is part of what is sent next.
    chat.page.click("#new-chat")
    chat.ask("Hi")
    assert chat.texts() == ["Hi", "Hello world"]


def test_answer_again(chat):
    chat.ask("One")
    chat.ask("Two")
    chat.page.click("[aria-label='Answer again'] >> nth=1")
    chat.wait()
    assert chat.texts() == ["One", "Hello world", "Two", "Hello world"]
    assert len(chat.bodies()) == 3 and chat.bodies()[2] == chat.bodies()[1]
    chat.page.hover(".answer >> nth=0")
    chat.page.click("[aria-label='Answer again'] >> nth=0")
    chat.wait()
    assert chat.texts() == ["One", "Hello world"]


def test_edit_a_message(chat):
    chat.ask("One")
    chat.ask("Two")
    chat.page.hover(".user >> nth=0")
    chat.page.click("[aria-label='Edit your message'] >> nth=0")
    editor = chat.page.locator(".editor textarea")
    assert editor.input_value() == "One"
    editor.press("Escape")
    assert chat.texts() == ["One", "Hello world", "Two", "Hello world"]
    chat.page.click("[aria-label='Edit your message'] >> nth=0")
    editor.fill("Uno")
    editor.press("Enter")
    chat.wait()
    assert chat.texts() == ["Uno", "Hello world"]
    assert chat.bodies()[-1]["messages"] == [{"role": "user", "content": "Uno"}]
    assert chat.titles() == ["Uno"]


def test_a_reload_finds_the_conversation(chat):
    chat.ask("First conversation")
    chat.page.click("#new-chat")
    chat.ask("Second conversation")
    chat.page.reload()
    assert chat.texts() == ["Second conversation", "Hello world"]
    assert chat.titles() == ["Second conversation", "First conversation"]
    chat.page.click("text=First conversation")
    assert chat.texts() == ["First conversation", "Hello world"]
    chat.page.go_back()
    assert chat.texts() == ["Second conversation", "Hello world"]
    chat.ask("and on")
    assert [message["content"] for message in chat.bodies()[-1]["messages"]][0] == "Second conversation"


def test_a_reload_keeps_what_had_come(chat):
    chat.send(SLOW)
    chat.until("document.querySelector('.answer .body').innerText.length > 8")
    chat.page.reload()
    assert chat.texts()[1].startswith("one two")
    assert chat.page.inner_text(".remark") == "Stopped."


def test_another_conversation_meanwhile(chat):
    chat.send(SLOW)
    chat.page.click("#new-chat")
    chat.ask("Other")
    assert chat.texts() == ["Other", "Hello world"]
    chat.page.click("#chats .running")
    chat.wait()
    assert chat.texts()[-1].endswith("twelve thirteen")


def test_rename_delete_undo(chat):
    chat.ask("One")
    chat.page.hover("#chats li")
    chat.page.click("[aria-label='Rename One']")
    chat.page.fill("#chats input", "Better")
    chat.page.keyboard.press("Enter")
    assert chat.titles() == ["Better"]
    chat.page.reload()
    assert chat.titles() == ["Better"]
    chat.page.hover("#chats li")
    chat.page.click("[aria-label='Delete Better']")
    assert chat.titles() == [] and chat.page.is_visible("#welcome")
    chat.page.click("#toast button")
    assert chat.titles() == ["Better"] and chat.texts() == ["One", "Hello world"]
    chat.page.hover("#chats li")
    chat.page.click("[aria-label='Delete Better']")
    chat.page.reload()
    assert chat.titles() == [] and chat.texts() == []


def test_a_second_tab_sees_the_same(chat):
    first = chat.page
    chat.open()
    chat.ask("From the second tab")
    first.wait_for_selector("#chats .open")
    first.click("#chats .open")
    assert first.inner_text(".user .body") == "From the second tab"


def test_settings_are_sent_and_kept(chat):
    chat.page.click("#open-settings")
    chat.page.fill("#system", "Be brief.")
    chat.page.fill("#temperature", "0.5")
    chat.page.fill("#top_k", "20")
    chat.page.fill("#max_completion_tokens", "5")
    chat.page.fill("#min_p", "7")  # no such value: not sent
    chat.page.click("text=Done")
    chat.ask("Hi")
    body = chat.bodies()[-1]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {name: body.get(name) for name in ("temperature", "top_k", "max_completion_tokens", "min_p", "seed")} == {
        "temperature": 0.5, "top_k": 20, "max_completion_tokens": 5, "min_p": None, "seed": None}
    assert chat.texts()[-1] == "Hello"
    assert chat.page.inner_text(".remark") == "The answer reached its longest length."
    chat.page.reload()
    chat.page.click("#open-settings")
    assert chat.page.input_value("#system") == "Be brief." and chat.page.input_value("#temperature") == "0.5"
    chat.page.click("#reset-settings")
    chat.page.click("#new-chat")
    chat.ask("Hi")
    assert set(chat.bodies()[-1]) == {"messages", "stream", "stream_options"}


def test_a_key_is_asked_for(open_chat, start_probe):
    chat = open_chat(start_probe("--key", "secret"))
    chat.page.fill("#key", "wrong")
    chat.page.click("text=Use this key")
    chat.until("document.querySelector('#key-error').innerText.includes('does not take')")
    chat.page.fill("#key", "secret")
    chat.page.keyboard.press("Enter")
    chat.page.wait_for_selector("#key-dialog:not([open])", state="attached")
    chat.ask("Hi")
    assert chat.texts() == ["Hi", "Hello world"]
    chat.page.reload()
    chat.ask("Again")
    assert chat.texts()[2:] == ["Again", "Hello world"]
    # Another tab asks anew, until a key is kept.
    chat.open()
    chat.page.wait_for_selector("#key-dialog[open]")
    chat.page.fill("#key", "secret")
    chat.page.check("#keep-key")
    chat.page.click("text=Use this key")
    chat.page.wait_for_selector("#key-dialog:not([open])", state="attached")
    chat.open()
    chat.until("document.querySelector('#model').innerText === 'test'")


def test_trouble_is_said(open_chat, start_probe):
    server = start_probe("--places", "1")
    chat = open_chat(server)
    chat.send("[slow] [endless]")
    chat.until("document.querySelector('.answer .body')?.innerText.length > 1")
    chat.page.click("#new-chat")
    chat.ask("Hi")
    assert "The server is busy" in chat.page.inner_text(".trouble")
    chat.page.click("#chats .running")
    chat.page.keyboard.press("Escape")
    chat.page.click("text=Hi")
    wait_for(lambda: figure(server, "num_requests_running") == 0)
    chat.page.click("text=Try again")
    chat.wait()
    assert chat.texts() == ["Hi", "Hello world"]
    chat.ask("[fail] now")
    assert chat.page.inner_text(".trouble")
    server.stop()
    chat.ask("Are you there?")
    assert "cannot be reached" in chat.page.inner_text(".message:last-child .trouble")


def test_with_the_real_model(open_chat, real):
    chat = open_chat(real)
    chat.page.click("#open-settings")
    chat.page.fill("#temperature", "0")
    chat.page.click("text=Done")
    chat.ask("What is the capital of France?")
    assert "Paris" in chat.texts()[1]
    assert chat.complaints == []
