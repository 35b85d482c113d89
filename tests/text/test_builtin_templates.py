"""The built-in chat templates against LMDeploy's own prompts (lmdeploy_prompts.json, made by make_lmdeploy_prompts.py).

Where ours differ on purpose, DIFFERENT says why, and hand-written prompts stand in for LMDeploy's.
"""

import json
import pathlib

import pytest

import text_probe
from make_lmdeploy_prompts import CONVERSATIONS, TOOLS, A, FUNCTION, Q, R, S

LMDEPLOY = json.loads(pathlib.Path(__file__).with_name("lmdeploy_prompts.json").read_text())
INPUTS = CONVERSATIONS | TOOLS
WRAPPED = {"type": "function", "function": FUNCTION}

# Of v0.9.2, and taken over by the tokenizer's Jinja there since.
LEFT_OUT = {"intern-s1", "interns1"}

CUT = "LMDeploy cuts the last character of the answer that is to be continued"
OPENS = "LMDeploy opens a new answer instead of continuing the last"
INSIDE = "the system text goes where the model was trained to find it: into the first question"
EMPTY = "the model was trained without an empty system text in front"
DIFFERENT = {
    **{(name, "answer to continue"): CUT
       for name in ("vicuna", "wizardlm", "llava-v1", "deepseek", "deepseek-vl", "deepseek-vl2", "internvl-zh")},
    **{(name, "answer to continue"): OPENS
       for name in ("qwen2d5", "qwen2d5-vl", "qwq_preview", "qwq", "qwen3", "deepseek-r1", "baichuan2", "solar", "chatglm3",
                    "glm4", "codegeex4")},
    **{(name, title): INSIDE for name in ("mistral", "mixtral", "gemma")
       for title in ("own system text", "two turns with a system text", "answer to continue")},
    **{(name, title): EMPTY for name in ("qwen3", "qwq", "llama4", "deepseek") for title in ("one question", "two turns")},
    **{("chatglm", title): "LMDeploy drops the blank line between an answer and the next round"
       for title in ("two turns", "two turns with a system text")},
    **{("chatglm", title): "LMDeploy drops the system text"
       for title in ("own system text", "two turns with a system text", "answer to continue")},
}
CASES = [(name, title) for name, prompts in LMDEPLOY["prompts"].items() if name not in LEFT_OUT for title in prompts]


def render(name, inputs):
    given = dict(inputs)
    if "tools" in given:
        given["tools"] = [{"type": "function", "function": tool} for tool in given["tools"]]
    (answer,) = text_probe.render(name, [given])
    return answer


def test_prompts_equal_those_of_lmdeploy():
    wrong = [(name, title, render(name, INPUTS[title]), LMDEPLOY["prompts"][name][title]) for name, title in CASES
             if (render(name, INPUTS[title]) == LMDEPLOY["prompts"][name][title]) == ((name, title) in DIFFERENT)]
    print(f"{len(CASES)} compared, {len(DIFFERENT)} of them differ on purpose")
    assert wrong == []
    assert set(DIFFERENT) <= set(CASES)


HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n".format
WHOLE = [S, Q, A, R]


@pytest.mark.parametrize("name, messages, prompt", [
    ("vicuna", [S, Q, A], "Be brief. 简短 USER: Was ist 上海? ASSISTANT: Eine Stadt."),
    ("deepseek", [Q, A], "User: Was ist 上海?\n\nAssistant: Eine Stadt."),
    ("qwen3", [Q], "<|im_start|>user\nWas ist 上海?<|im_end|>\n<|im_start|>assistant\n"),
    ("qwq", [Q], "<|im_start|>user\nWas ist 上海?<|im_end|>\n<|im_start|>assistant\n<think>\n"),
    ("qwen3", [S, Q, A], "<|im_start|>system\nBe brief. 简短<|im_end|>\n<|im_start|>user\nWas ist 上海?<|im_end|>\n"
                         "<|im_start|>assistant\nEine Stadt."),
    ("mistral", WHOLE, "[INST] Be brief. 简短\n\nWas ist 上海? [/INST]Eine Stadt.</s>[INST] Und Köln?\n [/INST]"),
    ("gemma", WHOLE, "<start_of_turn>user\nBe brief. 简短\n\nWas ist 上海?<end_of_turn>\n<start_of_turn>model\nEine Stadt."
                     "<end_of_turn>\n<start_of_turn>user\nUnd Köln?\n<end_of_turn>\n<start_of_turn>model\n"),
    ("chatglm", [Q, A, R], "[Round 1]\n\n问：Was ist 上海?\n\n答：Eine Stadt.\n\n[Round 2]\n\n问：Und Köln?\n\n\n答："),
    ("cohere", WHOLE, "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief. 简短<|END_OF_TURN_TOKEN|>"
                      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Was ist 上海?<|END_OF_TURN_TOKEN|>"
                      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Eine Stadt.<|END_OF_TURN_TOKEN|>"
                      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Und Köln?\n<|END_OF_TURN_TOKEN|>"
                      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
    ("minicpm", [Q, A, R], "<用户>Was ist 上海?<AI>Eine Stadt.<用户>Und Köln?\n<AI>"),
    ("base", WHOLE, "Be brief. 简短Was ist 上海?Eine Stadt.Und Köln?\n"),
    ("llama3_3", [Q], "<|begin_of_text|>" + HEADER("system") + "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"
                      "\n\nYou are a helpful assistant.<|eot_id|>" + HEADER("user") + "Was ist 上海?<|eot_id|>"
                      + HEADER("assistant")),
    ("chatml", [Q], "<|im_start|>user\nWas ist 上海?<|im_end|>\n<|im_start|>assistant\n"),
])
def test_prompts_written_by_hand(name, messages, prompt):
    assert render(name, {"messages": messages}) == prompt


def test_thinking_can_be_switched_off():
    off = render("qwen3", {"messages": [Q], "extra": {"enable_thinking": False}})
    assert off == "<|im_start|>user\nWas ist 上海?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    on = render("qwen3", {"messages": [Q], "extra": {"enable_thinking": True}})
    assert on == "<|im_start|>user\nWas ist 上海?<|im_end|>\n<|im_start|>assistant\n"


def test_internlm2_names_its_plugins():
    prompt = render("internlm2", {"messages": [S, {"role": "user", "name": "interpreter", "content": "x"}]})
    assert "<|im_start|>user name=<|interpreter|>\nx<|im_end|>\n" in prompt


def test_templates_without_a_form_for_tools_say_so():
    for given in ({"messages": [Q], "tools": [FUNCTION]}, TOOLS["tool call"] | {"tools": []}):
        assert "has no form for tool" in str(render("vicuna", given))
    assert "knows no role" in str(render("vicuna", {"messages": [{"role": "tool", "content": "x"}]}))


@pytest.mark.parametrize("call", [1, {}, {"function": {}}, {"function": {"name": "f", "arguments": "{"}},
                                  {"function": {"name": "f", "arguments": [1]}}])
def test_malformed_tool_calls_are_refused(call):
    for name in ("internlm2", "qwen2d5"):
        answer = render(name, {"messages": [Q, {"role": "assistant", "content": "", "tool_calls": [call]}]})
        assert "a tool call is not" in str(answer)
