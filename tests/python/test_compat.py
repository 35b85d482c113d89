"""compat/: the name `lmdeploy`. The course's scripts and commands run as they are, but for the model's path.

The course's page shows pairs in a Chatbot, which Gradio 6 no longer takes: its test runs with `-m peer` alone, and wants
LANNER_TEST_GRADIO_5, a folder with Gradio 5 (`pip install --target FOLDER 'gradio<6'`).
"""

import importlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

import lanner
from lanner import api_client, messages, serving, tokenizer, vl

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = str(pathlib.Path(lanner.__path__[0]).parent)
QUESTION = "What is the capital of France?"
COURSE_MODEL = "/root/internlm2-chat-1_8b"

PIPELINE = """
from lmdeploy import pipeline

pipe = pipeline('/root/internlm2-chat-1_8b')
response = pipe(['Hi, pls intro yourself', '上海是'])
print(response)
"""

PIPELINE_KV = """
from lmdeploy import pipeline, TurbomindEngineConfig

backend_config = TurbomindEngineConfig(cache_max_entry_count=0.2)

pipe = pipeline('/root/internlm2-chat-1_8b', backend_config=backend_config)
response = pipe(['Hi, pls intro yourself', '上海是'])
print(response)
"""

PIPELINE_AWQ = """
from lmdeploy import pipeline, TurbomindEngineConfig

cfg = TurbomindEngineConfig(model_format='awq', cache_max_entry_count=0.4)
pipe = pipeline('/root/internlm2-chat-1_8b', backend_config=cfg)
print(pipe(['Hi, pls intro yourself', '上海是']))
"""

SPEED = """
import datetime
from lmdeploy import pipeline

pipe = pipeline('/root/internlm2-chat-1_8b')

for i in range(5):
    print("Warm up...[{}/5]".format(i + 1))
    response = pipe(["hello"])

question = "请介绍一下你自己。"
rounds = 10
words = 0
begin = datetime.datetime.now()
for i in range(rounds):
    response = pipe([question])
    words += len(response[0].text)
seconds = (datetime.datetime.now() - begin).total_seconds()
print("Speed: {:.3f} words/s".format(words / seconds))
"""

PAGE = """
import gradio as gr
from lmdeploy import pipeline, TurbomindEngineConfig

backend_config = TurbomindEngineConfig(session_len=8192)
pipe = pipeline('/root/internlm2-chat-1_8b', backend_config=backend_config)

def model(image, text):
    if image is None:
        return [(text, pipe(text).text)]
    return [(text, pipe((text, image)).text)]

demo = gr.Interface(fn=model, inputs=[gr.Image(type='pil'), gr.Textbox()], outputs=gr.Chatbot())
demo.launch()
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """compat/ as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
         "--disable-pip-version-check", "--no-warn-script-location", "--target", str(folder), str(ROOT / "compat")],
        check=True, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
    )  # fmt: skip
    return folder


@pytest.fixture
def environment(site, tmp_path):
    """Where `lmdeploy` is found as a command and as a module."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "LANNER_DATA"))}
    return {**kept, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{site}:{PACKAGE}",
            "PATH": f"{site / 'bin'}:{os.environ['PATH']}", "LANNER_PROGRAM": os.environ["LANNER_BINARY"],
            "GRADIO_ANALYTICS_ENABLED": "False"}  # fmt: skip


@pytest.fixture
def run(environment, tmp_path):
    """run(a command of the course, stdin): what came of it, in an empty folder."""

    def run_command(command, stdin="", timeout=300):
        return subprocess.run(["/bin/bash", "-c", command], input=stdin, capture_output=True, encoding="utf-8",
                              cwd=tmp_path, env=environment, timeout=timeout, check=False)  # fmt: skip

    return run_command


@pytest.fixture
def start(environment, tmp_path):
    """start(a command, a pattern): the process and what the pattern found in its output; it ends with the test."""
    started = []

    def start_command(command, pattern, **more):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   encoding="utf-8", cwd=tmp_path, env={**environment, **more})  # fmt: skip
        started.append(process)
        too_late = threading.Timer(120, process.kill)
        too_late.start()
        output = ""
        for line in process.stdout:
            output += line
            found = re.search(pattern, line)
            if found:
                break
        else:
            pytest.fail(output)
        too_late.cancel()
        threading.Thread(target=process.stdout.read, daemon=True).start()
        return process, found

    yield start_command
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def course(environment, tmp_path):
    """course(a script's text, a model): runs it, with only the model's path changed."""

    def run_script(text, model, timeout=550):
        script = tmp_path / "script.py"
        script.write_text(text.replace(COURSE_MODEL, str(model)), encoding="utf-8")
        done = subprocess.run([sys.executable, script], capture_output=True, encoding="utf-8", cwd=tmp_path,
                              env=environment, timeout=timeout, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run_script


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder that takes group sizes of 128, with a tokenizer of bytes."""
    sys.path.insert(0, str(ROOT / "tests" / "quantize"))
    from quantize_support import wide_model, write_tokenizer

    folder = tmp_path_factory.mktemp("tiny") / "internlm2-chat-1_8b"
    wide_model(layers=2).write_folder(folder)
    write_tokenizer(folder)
    return folder


def responses(printed):
    """The answers of a printed list of Response: LMDeploy 0.3 shows them as dataclasses."""
    answers = eval(printed, {"Response": messages.Response})
    assert printed.strip() == repr(answers)
    return answers


# The module


@pytest.mark.parametrize("module, ours, names", [
    ("lmdeploy", lanner, "pipeline Pipeline Tokenizer GenerationConfig TurbomindEngineConfig PytorchEngineConfig VisionConfig "
     "ChatTemplateConfig __version__ version_info"),
    ("lmdeploy", serving, "serve client"),
    ("lmdeploy.messages", messages, "Response SpeculativeConfig GenerationConfig TurbomindEngineConfig PytorchEngineConfig "
     "VisionConfig ChatTemplateConfig"),
    ("lmdeploy.vl", vl, "load_image encode_image_base64"),
    ("lmdeploy.vl.constants", vl, "IMAGE_TOKEN"),
    ("lmdeploy.model", messages, "ChatTemplateConfig"),
    ("lmdeploy.tokenizer", tokenizer, "Tokenizer DetokenizeState"),
    ("lmdeploy.serve.openai.api_client", api_client, "APIClient"),
])  # fmt: skip
def test_names(site, monkeypatch, module, ours, names):
    monkeypatch.syspath_prepend(str(site))
    theirs = importlib.import_module(module)
    assert pathlib.Path(theirs.__file__).is_relative_to(site)
    for name in names.split():
        assert getattr(theirs, name) is getattr(ours, name), name
        assert name in theirs.__all__


def test_the_old_name_of_the_generation_config(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    assert importlib.import_module("lmdeploy.messages").EngineGenerationConfig is messages.GenerationConfig


def test_metadata(site):
    """One version for both packages, which CMakeLists.txt says."""
    version = re.search(r"project\(lanner VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    metadata = next(site.glob("lanner_lmdeploy-*.dist-info")) / "METADATA"
    assert f"\nVersion: {version}\n" in metadata.read_text()
    assert f"\nRequires-Dist: lanner=={version}\n" in metadata.read_text()
    assert lanner.__version__ == version
    assert not (site / "lanner").exists()


# The course's scripts


def test_pipeline(course, model):
    first, second = responses(course(PIPELINE, model))
    assert first.text and second.text
    assert first.finish_reason in ("stop", "length") and first.generate_token_len > 0 and first.input_token_len > 0


def test_pipeline_with_a_share_for_the_kv_cache(course, model):
    assert len(responses(course(PIPELINE_KV, model))) == 2


def test_speed(course, tiny):
    """Of a model whose fifteen answers of up to 512 tokens take no time on any machine."""
    lines = course(SPEED, tiny).splitlines()
    assert lines[:5] == [f"Warm up...[{i}/5]" for i in range(1, 6)]
    assert float(re.fullmatch(r"Speed: ([\d.]+) words/s", lines[5])[1]) > 0


@pytest.mark.peer
def test_page(environment, start, tmp_path, model):
    gradio = os.environ.get("LANNER_TEST_GRADIO_5")
    if not gradio:
        pytest.fail("LANNER_TEST_GRADIO_5 does not name a folder with Gradio 5")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = tmp_path / "page.py"
    script.write_text(PAGE.replace(COURSE_MODEL, model), encoding="utf-8")
    _, found = start([sys.executable, "-u", str(script)], r"Running on local URL: +(http://\S+)", GRADIO_SERVER_PORT=str(port),
                     PYTHONPATH=f"{gradio}:{environment['PYTHONPATH']}")  # fmt: skip
    url = found[1]
    request = urllib.request.Request(f"{url}/gradio_api/call/predict", json.dumps({"data": [None, QUESTION]}).encode(),
                                     {"Content-Type": "application/json"})  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as reply:
        event = json.load(reply)["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/predict/{event}", timeout=120) as reply:
        told = reply.read().decode()
    assert "event: complete" in told, told
    pair = json.loads(told.rpartition("data: ")[2])[0][0]
    assert pair[0] == QUESTION and pair[1].strip()  # drawn: what it says is chance


# The course's commands


def test_version(run):
    for command in ("lmdeploy -v", "lmdeploy --version", f"{sys.executable} -m lmdeploy -v"):
        done = run(command)
        assert (done.returncode, done.stdout, done.stderr) == (0, lanner.__version__ + "\n", "")


@pytest.mark.parametrize("command, says", [
    ("lmdeploy --help", "chat"), ("lmdeploy chat -h", "--cache-max-entry-count"), ("lmdeploy lite -h", "auto_awq"),
    ("lmdeploy serve api_server -h", "--server-port"), ("lmdeploy lite", "auto_awq"), ("lmdeploy serve", "api_server"),
    ("lmdeploy lite auto_awq -h", "--w-group-size"), ("lmdeploy serve api_client -h", "--session-id"),
    ("lmdeploy serve gradio -h", "--server-port"), ("lmdeploy check_env", "CUDA available:"), ("lmdeploy list", "internlm2"),
])  # fmt: skip
def test_help(run, command, says):
    done = run(command)
    assert done.returncode == 0 and says in done.stdout, done.stderr


@pytest.mark.parametrize("command", [
    "lmdeploy chat {model}", "lmdeploy chat {model} --cache-max-entry-count 0.5", "lmdeploy chat {model} --cache-max-entry-count 0.01",
    "lmdeploy chat --cache-max=0.01 {model}", "lmdeploy chat {model} --cache_max_entry_count=0.01",
    "lmdeploy chat turbomind {model}", "lmdeploy chat {model} --quant-policy 8", "lmdeploy chat {model} --quant-policy 4",
    sys.executable + " -m lmdeploy chat {model}",
])  # fmt: skip
def test_chat(run, model, command):
    # The answer is drawn: what it says is chance, and so is its length, which the context ends.
    done = run(command.format(model=model) + " --session-len 128", f"{QUESTION}\n\nexit\n\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", ["lmdeploy chat {model} --no-such-flag", "lmdeploy no_such_verb", "lmdeploy serve api_server a b"])
def test_what_is_wrong(run, model, command):
    done = run(command.format(model=model))
    assert done.returncode == 2 and done.stdout == "" and "usage:" in done.stderr


def test_quantize_and_talk(run, course, environment, tiny, tmp_path):
    texts = tmp_path / "data" / "ptb"
    texts.mkdir(parents=True)
    (texts / "train.txt").write_bytes((ROOT / "data/wikitext2/valid.txt").read_bytes()[:200_000])
    environment["LANNER_DATA_DIR"] = str(texts.parent)
    done = run(f"lmdeploy lite auto_awq {tiny} --calib-dataset 'ptb' --calib-samples 128 --calib-seqlen 1024 "
               "--w-bits 4 --w-group-size 128 --work-dir internlm2-chat-1_8b-4bit")  # fmt: skip
    assert done.returncode == 0, done.stderr
    quantized = tmp_path / "internlm2-chat-1_8b-4bit"
    assert json.loads((quantized / "config.json").read_text())["quantization_config"]["quant_method"] == "awq"
    done = run("lmdeploy chat internlm2-chat-1_8b-4bit --model-format awq --cache-max-entry-count 0.01", "Hi\n\nexit\n\n")
    assert done.returncode == 0 and done.stdout, done.stderr
    assert len(responses(course(PIPELINE_AWQ, quantized))) == 2


def test_server_terminal_client_and_page(run, start, model):
    server = "lmdeploy serve api_server {} --model-format hf --cache-max-entry-count 0.4 --quant-policy 0 " \
             "--server-name 0.0.0.0 --server-port 0 --tp 1"  # fmt: skip
    process, found = start(server.format(model).split(), r"running on http://\S+:(\d+)")
    url = f"http://localhost:{found[1]}"
    done = run(f"lmdeploy serve api_client {url}", f"{QUESTION}\n\nexit\n\n")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    with urllib.request.urlopen(url, timeout=60) as page:
        assert page.status == 200 and b"/v1/chat/completions" in page.read()
    gradio, found = start(f"lmdeploy serve gradio {url} --server-name 0.0.0.0 --server-port 0".split(),
                          r"server is gonna mount on: http://0.0.0.0:(\d+)")  # fmt: skip
    until = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}", timeout=60) as page:
                assert page.status == 200
                break
        except urllib.error.URLError:
            assert time.monotonic() < until
            time.sleep(0.1)
    for running in (gradio, process):
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0


def test_client_of_a_script(environment, start, course, model):
    _, found = start(f"lmdeploy serve api_server {model} --server-port 0 --model-name small".split(), r"running on http://\S+:(\d+)")
    printed = course(f"""
from lmdeploy.serve.openai.api_client import APIClient
api_client = APIClient('http://0.0.0.0:{found[1]}')
model_name = api_client.available_models[0]
for item in api_client.chat_completions_v1(model=model_name, messages=[dict(role='user', content='{QUESTION}')], temperature=0):
    print(item['choices'][0]['message']['content'])
""", model)  # fmt: skip
    assert printed == "The capital of France is Paris.\n"


def test_serve_of_a_script(course, model):
    printed = course(f"""
from lmdeploy import serve, TurbomindEngineConfig
client = serve('{COURSE_MODEL}', server_name='0.0.0.0', server_port=0, api_keys=['key'],
               backend_config=TurbomindEngineConfig(session_len=512, cache_max_entry_count=0.05))
for text, tokens, reason in client.chat('{QUESTION}', session_id=1, request_output_len=16, top_k=1):
    print(text)
""", model)  # fmt: skip
    assert printed == "The capital of France is Paris.\n"
