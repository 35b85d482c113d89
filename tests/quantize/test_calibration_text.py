"""Calibration with conversations: what the model's own chat template makes of them is what is tokenized."""

import json

import jinja2
import pytest
import tiny_models
from safetensors.numpy import load_file

TEMPLATE = ("{% for message in messages %}<|{{ message.role }}|>\n{{ message['content'] | trim }}<|end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>\n{% endif %}")
CONVERSATIONS = [[{"role": "user", "content": f" What is {i} + 三? "}, {"role": "assistant", "content": f"It is {i + 3}."}]
                 for i in range(40)]


@pytest.fixture
def folder(write_model):
    folder = write_model(tiny_models.llama())
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}), encoding="utf-8")
    return folder


def calibrate(run, folder, dataset, out):
    done = run("lite", "auto_awq", folder, "--work-dir", out, "--calib-dataset", dataset, "--w-group-size", "32",
               "--calib-samples", "6", "--calib-seqlen", "80", "--no-report")
    assert done.returncode == 0, done.stderr.decode()
    return load_file(out / "model.safetensors"), done.stderr.decode()


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_conversations_are_calibrated_with_as_the_models_template_renders_them(run, folder, tmp_path):
    lines = write_lines(tmp_path / "talk.jsonl", [{"messages": messages, "id": 7} for messages in CONVERSATIONS])
    template = jinja2.Environment().from_string(TEMPLATE)
    text = tmp_path / "talk.txt"
    text.write_text("".join(template.render(messages=one) for one in CONVERSATIONS), encoding="utf-8")
    # Every byte of a text is a token of this model's tokenizer, so that both are the same tokens.
    ours, said = calibrate(run, folder, lines, tmp_path / "a")
    wanted, _ = calibrate(run, folder, text, tmp_path / "b")
    assert said == ""
    assert ours.keys() == wanted.keys()
    assert all(ours[name].tobytes() == wanted[name].tobytes() for name in wanted)
    # And other words would have other scales.
    other = write_lines(tmp_path / "other.jsonl", [{"messages": [{"role": "user", "content": "zz" * 900}]}])
    different, _ = calibrate(run, folder, other, tmp_path / "c")
    name = "model.layers.1.mlp.up_proj.scales"
    assert different[name].tobytes() != wanted[name].tobytes()


def test_a_model_without_a_template_says_what_its_messages_become(run, write_model, tmp_path):
    folder = write_model(tiny_models.llama())
    lines = write_lines(tmp_path / "talk.jsonl", [{"messages": messages} for messages in CONVERSATIONS])
    _, said = calibrate(run, folder, lines, tmp_path / "a")
    assert said.startswith("lanner: note: the model has no chat template") and said.count("\n") == 1


REFUSING = "{% if messages[0].role != 'user' %}{{ raise_exception('begin with the user') }}{% endif %}" + TEMPLATE


@pytest.mark.parametrize(("line", "what"), [
    ('{"messages": []}', '"messages" is not a list of messages'),
    ('{"messages": [{"role": "user"}]}', 'messages[0] has no string "content"'),
    ('{"messages": [{"role": "system", "content": "x"}]}', "begin with the user"),
    ('{"text": 5}', 'a string "text" or a list "messages"'),
    ('{"messages": [{"role": "user", "content": "x"}', "JSON"),
    ('{"messages": ' + "[" * 5000 + "]" * 5000 + "}", "deep"),
])
def test_lines_that_are_no_text_are_refused_with_file_and_line(run, folder, tmp_path, line, what):
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": REFUSING}))
    lines = tmp_path / "talk.jsonl"
    lines.write_text(json.dumps({"messages": CONVERSATIONS[0]}) + "\n" + line + "\n")
    done = run("lite", "auto_awq", folder, "--work-dir", tmp_path / "out", "--calib-dataset", lines, "--w-group-size", "32")
    said = done.stderr.decode()
    assert done.returncode == 1 and said.startswith("lanner: error: ") and said.count("\n") == 1
    assert f"{lines}:2: " in said and what in said, said
    assert not list(tmp_path.glob("out*"))
