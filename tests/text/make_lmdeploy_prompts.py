#!/usr/bin/env python3
"""Writes lmdeploy_prompts.json: what LMDeploy's own chat templates make of a few conversations.

    pip download --no-deps --only-binary :all: --python-version 3.10 lmdeploy==0.9.2
    unzip lmdeploy-0.9.2-*.whl lmdeploy/model.py
    tests/text/make_lmdeploy_prompts.py lmdeploy/model.py

The file is loaded by itself: the two packages that it imports are stood in for by a few lines.
"""

import copy
import importlib.util
import json
import logging
import pathlib
import sys
import types

S = {"role": "system", "content": "Be brief. 简短"}
Q = {"role": "user", "content": "Was ist 上海?"}
A = {"role": "assistant", "content": "Eine Stadt."}
R = {"role": "user", "content": "Und Köln?\n"}
FUNCTION = {"name": "get_weather", "description": "Das Wetter in <Stadt>",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
CALL = {"role": "assistant", "content": "Moment.", "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Köln\"}"}}]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "{\"sky\": \"grau\"}"}

CONVERSATIONS = {
    "one question": {"messages": [Q]},
    "own system text": {"messages": [S, Q]},
    "two turns": {"messages": [Q, A, R]},
    "two turns with a system text": {"messages": [S, Q, A, R]},
    "answer to continue": {"messages": [S, Q, A]},
}
TOOLS = {
    "tools": {"messages": [Q], "tools": [FUNCTION]},
    "tools and a system text": {"messages": [S, Q], "tools": [FUNCTION, FUNCTION]},
    "tool call": {"messages": [S, Q, CALL, RESULT, A, R], "tools": [FUNCTION]},
    "two results": {"messages": [S, Q, CALL, RESULT, RESULT], "tools": [FUNCTION]},
}


class Registry:
    def __init__(self, *_, **__):
        self.module_dict = {}

    def register_module(self, name=None, module=None):
        def register(cls):
            for one in [name] if isinstance(name, str) else name:
                self.module_dict[one] = cls
            return cls
        return register if module is None else register(module)

    def get(self, name):
        return self.module_dict[name]


def load(path):
    engine, package, utils = (types.ModuleType(name) for name in ("mmengine", "lmdeploy", "lmdeploy.utils"))
    engine.Registry = Registry
    utils.get_logger = logging.getLogger
    sys.modules.update({"mmengine": engine, "lmdeploy": package, "lmdeploy.utils": utils})
    spec = importlib.util.spec_from_file_location("lmdeploy.model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MODELS.module_dict


def prompt(template, conversation):
    return template().messages2prompt(copy.deepcopy(conversation["messages"]),
                                      **({"tools": conversation["tools"]} if "tools" in conversation else {}))


def main():
    templates = load(sys.argv[1])
    prompts = {}
    for name, template in templates.items():
        if name in ("base", "llama"):
            continue  # these give no prompt for messages
        prompts[name] = {title: prompt(template, one) for title, one in CONVERSATIONS.items()}
        if name in ("internlm2", "qwen2d5"):
            prompts[name] |= {title: prompt(template, one) for title, one in TOOLS.items()}
    stops = {name: template().stop_words for name, template in templates.items()}
    target = pathlib.Path(__file__).with_name("lmdeploy_prompts.json")
    target.write_text(json.dumps({"prompts": prompts, "stop_words": stops}, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
