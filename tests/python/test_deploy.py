"""lanner deploy: what stands in the folders, what is refused, and whether a page that was written so answers."""

import ast
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import pytest

import lanner
from lanner.deploy import check, folder
from lanner.deploy.command import main
from lanner.deploy.packages import debian_packages

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
COMMON = {"app.py", "requirements.txt", "packages.txt", "README.md"}
SMALL = ["--session-len", "512", "--cache-max-entry-count", "0.03", "--threads", "1"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = str(pathlib.Path(sys.modules["lanner"].__path__[0]).parent)


@pytest.fixture(autouse=True)
def program(monkeypatch):
    monkeypatch.setenv("LANNER_PROGRAM", os.environ["LANNER_BINARY"])


@pytest.fixture
def local(tmp_path):
    """A model of this machine, as far as copying goes: a folder of a cache of links."""
    blobs = tmp_path / "blobs"
    model = tmp_path / "a model"
    blobs.mkdir()
    model.mkdir()
    (blobs / "0123").write_bytes(b"weights")
    (model / "model.safetensors").symlink_to(blobs / "0123")
    (model / "config.json").write_text("{}")
    return model


def names(path):
    return {str(one.relative_to(path)) for one in path.rglob("*") if one.is_file()}


def front_matter(path):
    """Of README.md, by a reader of this test's own: `name: JSON` in each line."""
    head, _, _ = (path / "README.md").read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
    return {name: json.loads(value) for name, _, value in (line.partition(": ") for line in head.splitlines())}


def constants(path):
    """The names that app.py sets at its top, evaluated without importing anything."""
    tree = ast.parse((path / "app.py").read_text(encoding="utf-8"))
    return {node.targets[0].id: ast.unparse(node.value) for node in tree.body if isinstance(node, ast.Assign)}


@pytest.mark.parametrize(
    "target, more", [("openxlab", set()), ("modelscope", {"ms_deploy.json"}), ("hf-space", set()),
                     ("docker", {"Dockerfile", ".dockerignore"})])
def test_files_of_a_target(tmp_path, target, more, capsys):
    place = tmp_path / "new" / "chat"
    assert main(["--target", target, str(place), "--model", HUB_ID]) == 0
    assert names(place) == COMMON | more
    assert capsys.readouterr().out == f"{place}: written for {target}\n"
    assert (place / "requirements.txt").read_text() == f"lanner[ui]=={lanner.__version__}\n"
    assert constants(place)["MODEL"] == repr(HUB_ID)
    text = (place / "app.py").read_text()
    assert '"0.0.0.0", "--server-port", "7860"' in text
    assert ("\"LMDEPLOY_USE_MODELSCOPE\", \"True\"" in text) == (target == "modelscope")
    assert "$" not in text + (place / "README.md").read_text()
    assert [one for one in place.parent.iterdir() if one != place] == []
    (tmp_path / "usual").mkdir()
    assert place.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_head_that_hugging_face_reads(tmp_path):
    assert main([str(tmp_path / "a"), "--target=hf-space", "--model", HUB_ID + ":Q4_K_M", "--title", 'A "fine" model: 1']) == 0
    head = front_matter(tmp_path / "a")
    assert head["title"] == 'A "fine" model: 1' and head["sdk"] == "gradio" and head["app_file"] == "app.py"
    assert head["models"] == [HUB_ID]
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", head["sdk_version"]) and head["python_version"].startswith("3.")
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {head["colorFrom"], head["colorTo"]} <= colors
    assert "# A \"fine\" model: 1\n" in (tmp_path / "a" / "README.md").read_text()
    assert main([str(tmp_path / "b"), "--target", "docker", "--model", HUB_ID, "--port", "8000", "--hub", "modelscope"]) == 0
    head = front_matter(tmp_path / "b")
    assert head["sdk"] == "docker" and head["app_port"] == 8000 and "models" not in head


def test_what_modelscope_reads(tmp_path):
    assert main([str(tmp_path / "a"), "--target", "modelscope", "--model", "Qwen/Qwen2.5-0.5B-Instruct"]) == 0
    head = front_matter(tmp_path / "a")
    assert head["deployspec"] == {"entry_file": "app.py"} and head["domain"] == ["nlp"]
    assert head["models"] == ["Qwen/Qwen2.5-0.5B-Instruct"]
    quick = json.loads((tmp_path / "a" / "ms_deploy.json").read_text())
    assert quick["sdk_type"] == "gradio" and quick["$schema"].startswith("https://modelscope.cn/")
    assert main([str(tmp_path / "b"), "--target", "modelscope", "--model", HUB_ID, "--hub", "huggingface"]) == 0
    assert "models" not in front_matter(tmp_path / "b")
    assert '"LMDEPLOY_USE_MODELSCOPE", "False"' in (tmp_path / "b" / "app.py").read_text()


def test_a_dockerfile(tmp_path):
    assert main([str(tmp_path / "a"), "--target", "docker", "--model", HUB_ID, "--port", "8000"]) == 0
    text = (tmp_path / "a" / "Dockerfile").read_text()
    steps = [line.split()[0] for line in re.sub(r"\\\n", " ", text).splitlines() if line and not line.startswith("#")]
    assert steps == ["FROM", "COPY", "RUN", "WORKDIR", "COPY", "RUN", "COPY", "ENV", "USER", "EXPOSE", "STOPSIGNAL",
                     "HEALTHCHECK", "ENTRYPOINT"]
    assert "\nEXPOSE 8000\n" in text and "127.0.0.1:8000" in text and "\nUSER 1000\n" in text
    assert '"--server-port", "8000"' in (tmp_path / "a" / "app.py").read_text()
    health = json.loads(re.search(r"HEALTHCHECK.*?CMD (\[.*?\])$", text, re.DOTALL | re.MULTILINE)[1])
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = str(silent.getsockname()[1])
        asked = [sys.executable, *[word.replace("8000", port).replace("timeout=9", "timeout=1") for word in health[1:]]]
        assert subprocess.run(asked, stderr=subprocess.DEVNULL, check=False).returncode != 0
    ast.parse(health[2])


def test_flags_of_the_page(tmp_path):
    flags = ["--session-len", "2048", "--chat-template", '{"user": "Q: \'x\'"}', "--auth", "a:b"]
    assert main([str(tmp_path / "a"), "--target", "docker", "--model", HUB_ID, "--", *flags]) == 0
    assert ast.literal_eval(constants(tmp_path / "a")["FLAGS"]) == flags


def test_where_the_package_comes_from(tmp_path):
    package = "lanner[ui] @ https://example.com/lanner-0.1.0-cp312-cp312-manylinux_2_28_x86_64.whl"
    assert main([str(tmp_path / "a"), "--target", "docker", "--model", HUB_ID, "--package", package]) == 0
    assert (tmp_path / "a" / "requirements.txt").read_text() == package + "\n"


def test_packages_are_those_of_the_projects_image(tmp_path):
    """What ldd shows of the program, and what deploy/docker installs for it, are the same."""
    wanted = set(re.search(r"install -y --no-install-recommends (.*?) \\\n && rm .*?\n && useradd",
                           (ROOT / "deploy/docker/cpu.Dockerfile").read_text(), re.DOTALL)[1].split())
    assert set(debian_packages(pathlib.Path(os.environ["LANNER_BINARY"]))) == wanted
    assert main([str(tmp_path / "a"), "--target", "openxlab", "--model", HUB_ID]) == 0
    assert set((tmp_path / "a" / "packages.txt").read_text().splitlines()) == wanted


def test_libraries_that_come_with_the_program_want_no_package(tmp_path, monkeypatch):
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '\tlibfmt.so.9 => /venv/lanner.libs/libfmt.so.9 (0x1)'\n"
                   "echo '\tlibedit.so.2 => not found'\necho '\tlibtinfo.so.6 => /lib/libtinfo.so.6 (0x1)'\n"
                   "echo '\tlibstdc++.so.6 => /lib/x86_64-linux-gnu/libstdc++.so.6 (0x1)'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert debian_packages(pathlib.Path("x")) == ["ca-certificates", "libedit2", "libstdc++6"]


def test_a_program_that_ldd_cannot_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LANNER_PROGRAM", "/no/such/program")
    assert main([str(tmp_path / "a"), "--target", "openxlab", "--model", HUB_ID]) == 1
    assert "lanner: error: /no/such/program: ldd cannot read it: " in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("target", folder.TARGETS)
def test_a_local_model_is_copied(tmp_path, local, target):
    place = tmp_path / "chat"
    assert main([str(place), "--target", target, "--model", str(local), "--copy-model"]) == 0
    copied = place / "model" / "a model"
    assert names(copied) == {"model.safetensors", "config.json"}
    assert not (copied / "model.safetensors").is_symlink()
    assert (copied / "model.safetensors").read_bytes() == b"weights"
    assert "model/**" in (place / ".gitattributes").read_text()
    assert constants(place)["MODEL"] == "str(FOLDER / 'model' / 'a model')"
    if target == "hf-space":
        assert "models" not in front_matter(place)


@pytest.mark.parametrize("words, message", [
    (["--model", "{local}"], r"a model of this machine, which the host does not have: --copy-model puts it"),
    (["--model", "no model"], r"--model no model: is no local path, and no model of a hub"),
    (["--model", "/no/such/model"], r"is no local path, and no model of a hub"),
    (["--model", "org/model", "--copy-model"], r"--model org/model: is no local path, and --copy-model copies one"),
    (["--model", "/dev/null", "--copy-model"], r"--model /dev/null: is neither a file nor a folder"),
    (["--model", "a\nb"], r"characters that cannot be printed"),
])
def test_models_that_are_refused(tmp_path, local, capsys, words, message):
    assert main([str(tmp_path / "a"), "--target", "docker", *[word.format(local=local) for word in words]]) == 1
    error = capsys.readouterr().err
    assert re.search("^lanner: error: .*" + message, error) and error.count("\n") == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("words, message", [
    (["--model", HUB_ID, "--target", "hf-space", "--port", "8000"], "hf-space expects the page on 7860"),
    (["--model", HUB_ID, "--target", "docker", "--port", "0"], "a port is 1 to 65535"),
    (["--model", HUB_ID, "--target", "docker", "--title", "a\nb"], "--title: is one line"),
    (["--model", HUB_ID, "--target", "docker", "--package", "a\nb"], "--package: is one line"),
    (["--model", HUB_ID, "--target", "heroku"], "invalid choice"),
    (["--target", "docker"], "--model"),
    (["--model", HUB_ID], "--target"),
])
def test_command_lines_that_are_wrong(tmp_path, capsys, words, message):
    assert main([str(tmp_path / "a"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "--copy-model" in capsys.readouterr().out


def test_spelling_with_underscores(tmp_path, local):
    assert main([str(tmp_path / "a"), "--target", "docker", "--model", str(local), "--copy_model"]) == 0


def test_a_folder_that_is_not_empty(tmp_path, capsys):
    place = tmp_path / "a"
    place.mkdir()
    assert main([str(place), "--target", "docker", "--model", HUB_ID]) == 0  # an empty one is taken
    before = {name: (place / name).read_text() for name in names(place)}
    assert main([str(place), "--target", "hf-space", "--model", "org/other"]) == 1
    assert f"{place}: is not empty; --force" in capsys.readouterr().err
    assert {name: (place / name).read_text() for name in names(place)} == before
    (place / ".git").mkdir()
    (place / ".git" / "HEAD").write_text("mine")
    assert main([str(place), "--target", "hf-space", "--model", "org/other", "--force"]) == 0
    assert constants(place)["MODEL"] == "'org/other'"
    assert (place / ".git" / "HEAD").read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "file"), "--target", "docker", "--model", HUB_ID, "--force"]) == 1
    assert "file: is a file" in capsys.readouterr().err


def test_force_replaces_a_model(tmp_path, local):
    place = tmp_path / "a"
    command = [str(place), "--target", "docker", "--copy-model", "--force", "--model"]
    assert main([*command, str(local)]) == 0
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    assert main([*command, str(other)]) == 0
    assert names(place / "model") == {"other.gguf"}


def test_a_folder_within_the_model(tmp_path, local, capsys):
    for place in (local / "chat", local):
        assert main([str(place), "--target", "docker", "--model", str(local), "--copy-model", "--force"]) == 1
        assert "lies in the model's own folder" in capsys.readouterr().err
    assert names(local) == {"model.safetensors", "config.json"}


def test_nothing_is_left_when_it_breaks_off(tmp_path, local, capsys, monkeypatch):
    (local / "gone").symlink_to("/no/such/file")
    assert main([str(tmp_path / "a"), "--target", "docker", "--model", str(local), "--copy-model"]) == 1
    error = capsys.readouterr().err
    assert "gone" in error and error.count("\n") == 1

    def full(*_):
        raise OSError(28, "No space left on device", "model")

    monkeypatch.setattr(folder, "_copy", full)
    assert main([str(tmp_path / "a"), "--target", "docker", "--model", str(local), "--copy-model"]) == 1
    assert "model: No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(folder, "_copy", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main([str(tmp_path / "a"), "--target", "docker", "--model", str(local), "--copy-model"]) == 130
    assert {one.name for one in tmp_path.iterdir()} == {"blobs", "a model"}


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "file" / "a"), "--target", "docker", "--model", HUB_ID]) == 1
    assert re.search(r"^lanner: error: \S*file\S*: (Not a directory|File exists)$", capsys.readouterr().err.strip())


def app(tmp_path, text):
    (tmp_path / "app.py").write_text(text)
    return tmp_path


SERVER = """
import http.server, json, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = {"/": b"page", "/config": json.dumps(CONFIG).encode()}.get(self.path, EVENTS)
        self.send_response(STATUS if self.path == "/" else 200)
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["data"] == [None, "What is the capital of France?", 32, 0.5, 0.01], asked
        self.do_GET()
    def log_message(self, *_): pass
CONFIG = {"api_prefix": "/api", "dependencies": [{"id": 3, "targets": [[5, "click"]], "inputs": []},
    {"id": 4, "targets": [[7, "submit"]], "inputs": [1, 7, 8, 9, 10]}], "components": [
    {"id": 10, "props": {"label": "Temperature", "value": 0.7, "minimum": 0.01}},
    {"id": 1, "props": {}}, {"id": 7, "props": {"value": ""}}, {"id": 9, "props": {"label": "Top_p", "value": 0.5}},
    {"id": 8, "props": {"label": "Maximum new tokens", "value": 512}}]}
def event(**more): return b"data: " + json.dumps(more).encode() + b"\\n\\n"
def done(text): return event(msg="process_completed", success=True, output={"data": ["", [{"role": "user", "content": "Hi"},
    {"role": "assistant", "content": [{"type": "text", "text": text}]}]]})
STATUS = 200
EVENTS = event(msg="estimation") + done("Paris")
CHANGE
server = http.server.HTTPServer(("127.0.0.1", 0), Page)
print(f"server is gonna mount on: http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""


def test_a_page_that_answers(tmp_path):
    assert check.check_folder(app(tmp_path, SERVER.replace("CHANGE", "")), 20) == "Paris"


@pytest.mark.parametrize("change, message", [
    ("EVENTS = done(' ')", "the answer is empty"),
    ("EVENTS = done('*The server has gone.*')", r"instead of an answer the page says: The server has gone\.$"),
    ("EVENTS = event(msg='process_completed', success=False, output={'error': 'out of memory'})", "asked: out of memory"),
    ("EVENTS = event(msg='estimation')", "its events broke off"),
    ("EVENTS = b'data: nonsense\\n'", "cannot be asked"),
    ("CONFIG = []", "cannot be asked"),
    ("CONFIG['dependencies'] = []", "cannot be asked"),
    ("STATUS = 500", "does not answer after 3 seconds"),
    ("import time; time.sleep(60)", "does not answer after 3 seconds"),
    ("sys.exit('lanner: error: no such model')", "^no such model$"),
    ("import lanner.no_such_module", r"^app.py ended with status 1: ModuleNotFoundError: No module named 'lanner.no_such_module'$"),
])
def test_pages_that_do_not(tmp_path, change, message):
    with pytest.raises(check.LannerError, match=message):
        check.check_folder(app(tmp_path, SERVER.replace("CHANGE", change)), 3)
    assert str(tmp_path / "app.py") not in subprocess.run(["ps", "-ww", "-eo", "args"], stdout=subprocess.PIPE, text=True,
                                                          check=True).stdout


def test_check_of_the_real_page(tmp_path, model, capsys):
    place = tmp_path / "chat"
    began = time.monotonic()
    words = [str(place), "--target", "docker", "--model", model, "--copy-model", "--check"]
    assert main([*words, "--", *SMALL]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(rf"{re.escape(str(place))}: the page answered after ([\d.]+) s: (.*)", line)
    assert found and 0 < float(found[1]) < time.monotonic() - began + 1
    assert "Paris" in found[2]
    running = subprocess.run(["ps", "-ww", "-eo", "args"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert str(place) not in running


def test_check_fails_where_the_model_does_not_load(tmp_path, capfd):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    assert main([str(tmp_path / "a"), "--target", "docker", "--model", str(broken), "--copy-model", "--check"]) == 1
    assert re.search(r"^lanner: error: .*broken.gguf", capfd.readouterr().err, re.MULTILINE)


def test_as_a_verb(tmp_path):
    done = subprocess.run([sys.executable, "-m", "lanner", "deploy", "--target", "docker", str(tmp_path / "a"), "--model", HUB_ID],
                          env={**os.environ, "PYTHONPATH": PACKAGE}, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.endswith("written for docker\n")
