"""Real chat templates, those that llama.cpp collects, against jinja2 as Transformers sets it up: byte for byte.

LANNER_TEST_LLAMA_CPP_VOCABS  the folder models/ of llama.cpp's source, whose templates/ has *.jinja;
                              scripts/fetch_llama_cpp_models.py fetches it. Runs only when asked for: -m peer
"""

import pytest

import text_probe
from test_chat_template import TOOL, transformers_environment

FAMILIES = 60  # at least

CALL = {"id": "call12345", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}}}
CONVERSATIONS = {
    "system": {"messages": [
        {"role": "system", "content": "You are a helpful 助手.\n"},
        {"role": "user", "content": "Hallo, wie geht's?"}]},
    "several turns": {"messages": [
        {"role": "user", "content": "  Was ist 1 < 2 && \"x\"? "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nJa. 😀"},
        {"role": "user", "content": "Danke\n\n"},
        {"role": "assistant", "content": "Bitte"},
        {"role": "user", "content": "Ende 上海是"}]},
    "tools": {"tools": [TOOL], "messages": [
        {"role": "user", "content": "Wie wird das Wetter?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "{\"sky\": \"grau\"}"},
        {"role": "assistant", "content": "Grau."},
        {"role": "user", "content": "Und morgen?"}]},
    "parts and unicode": {"extra": {"enable_thinking": False}, "messages": [
        {"role": "system", "content": "Σ"},
        {"role": "user", "content": "é😀\u2028\x7f\"'\\ <b>&amp;"},
        {"role": "assistant", "content": "नमस्ते", "reasoning_content": "考え"},
        {"role": "user", "content": [{"type": "text", "text": "ein "}, {"type": "text", "text": "Bild"}]}]},
    "an answer at the end": {"add_generation_prompt": False, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}]},
}

# docs/chat-templates.md names these kinds.
KNOWN = {
    ("llama-cpp-deepseek-r1", "tools"): "a generator is given to tojson",
    ("meetkai-functionary-medium-v3.1", "tools"): "text marked safe escapes what is added to it",
}


def reference(source, one):
    """The prompt, or None where Jinja2 refuses."""
    try:
        return transformers_environment().from_string(source).render(
            messages=one["messages"], tools=one.get("tools"), documents=None, bos_token="<s>", eos_token="</s>",
            add_generation_prompt=one.get("add_generation_prompt", True), **one.get("extra", {}))
    except Exception:  # whatever a template may raise is a refusal
        return None


@pytest.mark.peer
def test_families_equal_jinja2():
    folder = text_probe.environment_path("LANNER_TEST_LLAMA_CPP_VOCABS") / "templates"
    files = sorted(folder.glob("*.jinja"))
    equal, refused, wrong = 0, 0, []
    for path in files:
        answers = text_probe.render(path, [{**one, "bos": "<s>", "eos": "</s>"} for one in CONVERSATIONS.values()])
        for (title, one), answer in zip(CONVERSATIONS.items(), answers, strict=True):
            expected = reference(path.read_text(), one)
            actual = answer if isinstance(answer, str) else None
            if (expected == actual) == ((path.stem, title) in KNOWN):
                wrong.append((path.stem, title, expected, answer))
            elif expected == actual:
                equal, refused = equal + (actual is not None), refused + (actual is None)
    print(f"{len(files)} families, {equal} prompts equal, {refused} refused by both, {len(KNOWN)} known to differ")
    assert wrong == []
    assert len(files) >= FAMILIES
