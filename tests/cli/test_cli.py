"""The command line without a model: help, exit codes, suggestions, what is not there."""

import json
import shutil
import subprocess

import pytest

from conftest import BINARY


def test_help_names_verbs_and_examples(run):
    done = run("--help")
    assert done.returncode == 0 and done.stderr == b""
    text = done.stdout.decode()
    for word in ("usage: lanner VERB", "chat", "check_env", "list", "completion", "eval", "benchmark", "Examples:"):
        assert word in text


def test_no_verb_prints_help(run):
    assert run().stdout == run("--help").stdout
    assert run().returncode == 0


def test_group_without_verb_prints_its_help(run):
    done = run("eval")
    assert done.returncode == 0
    assert b"usage: lanner eval" in done.stdout


@pytest.mark.parametrize("verb", ["serve gradio", "deploy"])
def test_verbs_of_the_python_package_go_to_the_python_beside_the_program(tmp_path, verb):
    program = tmp_path / "lanner"
    shutil.copy(BINARY, program)
    python = tmp_path / "python3"
    python.write_text(f'#!{shutil.which("sh")}\necho "$LANNER_PROGRAM"\nshift 2\necho "$@"\nexit 7\n')
    python.chmod(0o755)
    words = [*verb.split(), "model", "--server-port", "1"]
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{program}\n{' '.join(words)}\n", "")


def test_without_the_python_package_a_line_says_how_to_install_it(run, environment, tmp_path):
    (tmp_path / "lanner.py").write_text("raise ModuleNotFoundError")  # as where it was never installed
    environment["PYTHONPATH"] = str(tmp_path)
    done = run("serve", "gradio", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"lanner: error: this verb needs the Python package: pip install 'lanner[ui]'\n"


@pytest.mark.parametrize("verb", [(), ("chat",), ("eval",), ("eval", "perplexity"), ("eval", "compare"), ("lite",), ("lite", "auto_awq"), ("lite", "auto_gptq"), ("lite", "calibrate"), ("lite", "smooth_quant"), ("lite", "kv_qparams"), ("benchmark",),
                                  ("benchmark", "generation"), ("benchmark", "kernels"), ("benchmark", "memory"),
                                  ("benchmark", "throughput"), ("benchmark", "serving"),
                                  ("serve",), ("serve", "api_server"), ("serve", "api_client"), ("serve", "proxy"), ("convert",), ("check_env",), ("list",), ("completion",)])
def test_a_flag_has_one_type(run, verb):
    text = run(*verb, "--help").stdout.decode()
    assert "usage: lanner" in text
    for doubled in ("INT:INT", ":{", ":INT in", ":NONNEGATIVE"):
        assert doubled not in text


def test_help_lists_no_verb_that_the_test_above_leaves_out(run):  # nor those of the Python package
    def verbs(*group):
        lines = run(*group, "--help").stdout.decode().split("\nVerbs:\n")[1].split("\n\n")[0].splitlines()
        return {line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")}

    assert verbs() == {"chat", "serve", "lite", "eval", "benchmark", "convert", "check_env", "list", "completion", "deploy"}
    assert verbs("serve") == {"api_server", "api_client", "proxy", "gradio"}
    assert verbs("lite") == {"auto_awq", "auto_gptq", "calibrate", "kv_qparams", "smooth_quant"}
    assert verbs("eval") == {"perplexity", "compare"}
    assert verbs("benchmark") == {"generation", "kernels", "memory", "throughput", "serving"}


def test_chat_help_shows_types_and_defaults(run):
    done = run("chat", "-h")
    assert done.returncode == 0
    text = " ".join(done.stdout.decode().split())
    assert "usage: lanner chat [options] [MODEL]" in text
    assert "--cache-max-entry-count FLOAT" in text and "(default: 0.8)" in text
    assert "--max-new-tokens INT" in text and "(default: 4096)" in text
    assert "--dtype auto|float16|bfloat16|float32" in text and "(default: auto)" in text


def test_help_wins_over_mistakes(run):
    assert run("chat", "--nonsense", "--help").returncode == 0


def test_version_is_bare(run):
    for flag in ("-v", "--version"):
        done = run(flag)
        assert done.returncode == 0
        assert done.stdout.decode().strip().replace(".", "").isdigit()


@pytest.mark.parametrize("arguments, message", [
    (["chta"], "unknown verb 'chta'; did you mean chat?"),
    (["chat", "--temprature", "1"], "unknown flag --temprature; did you mean --temperature?"),
    (["chat", "--cache_max_entry_cuont", "1"], "did you mean --cache-max-entry-count?"),
    (["chat", "--top", "1"], "ambiguous flag --top: could be"),
    (["chat", "--seed"], "--seed needs a value"),
    (["chat", "--seed", "--greedy"], "--seed needs a value"),
    (["chat", "--seed", "tomorrow"], "--seed: 'tomorrow' is not a valid value"),
    (["chat", "--dtype", "int3"], "'int3' is not one of auto|float16|bfloat16|float32"),
    (["chat", "-x"], "unknown flag -x"),
    (["chat", "one", "two"], "two"),
    (["completion"], "SHELL is required"),
    (["benchmark", "throughput", "model"], "--requests is required"),
])
def test_usage_errors(run, arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("usage: lanner")
    assert message in lines[1] and ": error: " in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize("flags", [
    ["--tp", "2"], ["--quant-policy", "fp8"], ["--quant-policy", "42"], ["--model-format", "fp8"], ["--adapters", "a=b"],
    ["--rope-scaling-factor", "2"], ["--speculative-algorithm", "eagle"],
    ["--device", "ascend"], ["--cap", "python"],
])
def test_what_is_not_built_yet_is_an_error(run, flags):
    done = run("chat", "model", *flags)
    assert done.returncode == 1
    message = done.stderr.decode()
    assert message.startswith("lanner: error: " + flags[0]) and message.count("\n") == 1
    assert "not available yet in this version" in message


def test_cuda_is_refused_where_the_program_has_none(run, tmp_path):
    done = run("chat", tmp_path / "none", "--device", "cuda")
    assert done.returncode == 1
    assert done.stderr.startswith(b"lanner: error: --device cuda: this program was built without CUDA")
    auto = run("chat", tmp_path / "none", "--device", "auto")
    assert auto.returncode == 1 and b"CUDA" not in auto.stderr  # the missing model is all that is wrong


def test_harmless_flags_are_accepted(run, tmp_path):
    # The missing model is reported, so the flags before it went through.
    done = run("chat", tmp_path / "none", "--tp", "1", "--quant-policy", "0", "--w4-prefill-copy", "off", "--model-format", "hf", "--device", "cpu",
               "--async", "0", "--communicator", "native", "--trust-remote-code", "--backend", "pytorch", "--eager-mode",
               "--enable-prefix-caching", "--language-model-only", "--revision", "main", "--download-dir", "x")
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("lanner: note: --backend pytorch")
    assert lines[1].startswith("lanner: warning: --eager-mode")
    assert "is no local path, and no model of a hub" in lines[2]
    assert len(lines) == 3


def test_prefixes_and_underscores(run):
    for spelling in ("--cache-max", "--cache_max_entry_count", "--cache_max=7", "--cache-max-entry-count=7"):
        arguments = [spelling] if "=" in spelling else [spelling, "7"]
        done = run("chat", *arguments, "model")
        assert done.returncode == 1
        assert done.stderr == b"lanner: error: --cache-max-entry-count must be between 0 and 1, both excluded\n"


@pytest.mark.parametrize("flag, value, rule", [
    ("--cache-max-entry-count", "0", "between 0 and 1, both excluded"),
    ("--cache-max-entry-count", "1", "between 0 and 1, both excluded"),
    ("--session-len", "-1", "0 or more"),
    ("--max-batch-size", "0", "between 1 and 4096"),
    ("--max-batch-size", "4097", "between 1 and 4096"),
    ("--max-prefill-token-num", "0", "between 1 and 65536"),
    ("--max-prefill-token-num", "65537", "between 1 and 65536"),
    ("--threads", "-1", "between 0 and 1024"),
    ("--threads", "1025", "between 0 and 1024"),
])
def test_ranges_are_those_of_the_engine(run, flag, value, rule):
    # There is no such model: the flag is refused before it is looked for.
    done = run("chat", "/no/such/model", flag, value)
    assert done.returncode == 1
    assert done.stderr.decode() == f"lanner: error: {flag} must be {rule}\n"


@pytest.mark.parametrize("flag, values", [
    ("--cache-max-entry-count", ("0.001", "0.999")), ("--max-batch-size", ("1", "4096")),
    ("--max-prefill-token-num", ("1", "65536")), ("--threads", ("0", "1024")),
])
def test_the_ends_of_the_ranges_are_allowed(run, flag, values):
    for value in values:
        assert b"/no/such/model: is no local path" in run("chat", "/no/such/model", flag, value).stderr


@pytest.mark.parametrize("arguments", [
    ["--batch-sizes", "1", "4", "MODEL"],
    ["--batch-sizes", "1", "4", "MODEL", "--output-tokens", "5"],
    ["--batch-sizes=1", "MODEL", "--prompt-tokens", "8", "16"],
    ["--prompt-tokens", "8", "--batch-sizes", "1", "4", "MODEL", "--seed", "1"],
    ["--batch-sizes", "1", "4", "--", "MODEL"],
    ["MODEL", "--batch-sizes", "1", "4"],
])
def test_a_list_of_numbers_leaves_the_model_alone(run, arguments):
    done = run("benchmark", "generation", *arguments)
    assert done.returncode == 1
    assert done.stderr == (b"lanner: error: MODEL: is no local path, and no model of a hub "
                           b"(those are called ORGANIZATION/NAME)\n")


@pytest.mark.parametrize("verb", [("eval", "perplexity"), ("eval", "compare"), ("benchmark", "generation"),
                                  ("benchmark", "throughput", "--requests", "r.json")])
def test_verbs_that_measure_do_not_offer_what_they_settle(run, verb):
    for flag in ("--max-batch-size=1", "--enable-prefix-caching", "--disable-prefix-caching", "--chat-template=chatml"):
        done = run(*verb, "model", flag)
        assert done.returncode == 2 and b"unknown flag " + flag.split("=")[0].encode() in done.stderr


def test_old_spelling_with_the_engine_name(run):
    done = run("chat", "turbomind", "/no/such/model")
    assert done.returncode == 1
    assert b"old spelling" in done.stderr and b"/no/such/model: is no local path" in done.stderr


def test_missing_default_model_says_what_to_do(run):
    done = run("chat")
    assert done.returncode == 1
    assert b"make chat" in done.stderr and done.stderr.count(b"\n") == 1


def test_the_default_model_is_where_the_xdg_rules_say(run, environment):
    below = "lanner/models/smollm2-135m-instruct-q4_1.gguf"
    for cache in ("", "relative"):
        environment["XDG_CACHE_HOME"] = cache
        assert f"({environment['HOME']}/.cache/{below})" in run("chat").stderr.decode()
    environment["XDG_CACHE_HOME"] = "/elsewhere"
    assert f"(/elsewhere/{below})" in run("chat").stderr.decode()


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_no_home(run, environment, home):
    del environment["HOME"]
    if home is not None:
        environment["HOME"] = home
    done = run("chat")
    assert done.returncode == 1
    assert b"neither HOME nor XDG_CACHE_HOME says where the default one is" in done.stderr


def test_data_folders_follow_the_xdg_rules(run, environment, tmp_path):
    environment.pop("LANNER_DATA_DIR", None)
    (tmp_path / "model").mkdir()

    def place(**variables):
        environment.update(variables)
        return run("eval", "perplexity", tmp_path / "model", "--dataset", "c4").stderr.decode()

    assert f"into {environment['HOME']}/.local/share/lanner/data/c4/test.txt" in place(XDG_DATA_HOME="relative")
    assert "into /elsewhere/lanner/data/c4/test.txt" in place(XDG_DATA_HOME="/elsewhere")
    assert "into /second/lanner/data/c4/test.txt" in place(XDG_DATA_HOME="", HOME="", XDG_DATA_DIRS="first:/second")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 64, b"not a model"])
def test_broken_model_file(run, tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    done = run("chat", path)
    assert done.returncode == 1
    assert done.stderr.startswith(b"lanner: error: ") and done.stderr.count(b"\n") == 1
    assert b"model.gguf" in done.stderr


def test_folder_without_a_model(run, tmp_path):
    done = run("chat", tmp_path)
    assert done.returncode == 1
    assert b"config.json" in done.stderr


def test_check_env(run, tmp_path):
    lines = run("check_env").stdout.decode().splitlines()
    keys = [line.split(": ")[0] for line in lines]
    for key in ("lanner", "build", "compiler", "processor", "instructions", "threads", "memory available", "CUDA"):
        assert key in keys
    assert "CUDA: built without CUDA" in lines
    facts = json.loads(run("check_env", "--json").stdout)
    assert facts["threads"] >= 1
    dump = tmp_path / "env.json"
    assert run("check_env", "--dump-file", dump).returncode == 0
    assert json.loads(dump.read_text())["CUDA"] == "built without CUDA"


def test_list(run):
    done = run("list")
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert max(map(len, lines)) <= 100
    templates = lines.index("The supported chat template names are:")
    assert "internlm2" in lines[templates + 1:]
    section, rows = None, {}
    for line in lines[:templates]:
        if line.startswith("Compared: "):
            section = line.removeprefix("Compared: ")
        elif line.startswith("  "):
            name, model_type, forms = line.split(maxsplit=2)
            rows[name] = (model_type, forms, section, line.index(f" {model_type} "), line.index(forms))
    llama, internlm2, internlm = (rows[f"{name}ForCausalLM"] for name in ("Llama", "InternLM2", "InternLM"))
    assert llama[:2] == ("llama", "Hugging Face folder, GGUF (llama)")
    assert "the real SmolLM2-135M" in llama[2] and "Transformers" in llama[2]
    assert internlm2[:2] == ("internlm2", "Hugging Face folder, GGUF (internlm2)")
    assert internlm[:2] == ("internlm", "Hugging Face folder")
    assert internlm2[2] == internlm[2] and "published code" in internlm[2]
    assert len(rows) >= 20
    assert len({row[3] for row in rows.values()}) == len({row[4] for row in rows.values()}) == 1  # columns


@pytest.mark.parametrize("line, expected", [
    ("lanner ch", ["chat", "check_env"]),
    ("lanner eval perp", ["perplexity"]),
    ("lanner chat --cache-m", ["--cache-max-entry-count"]),
    ("lanner chat model --top-", ["--top-p", "--top-k"]),
])
def test_bash_completion(run, tmp_path, line, expected):
    script = tmp_path / "lanner.bash"
    script.write_bytes(run("completion", "bash").stdout)
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    shell = f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _lanner; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_other_completions(run):
    assert b"#compdef lanner" in run("completion", "zsh").stdout
    assert b"complete -c lanner" in run("completion", "fish").stdout
    assert run("completion", "tcsh").returncode == 2


def test_full_disk_is_an_error(run):
    with open("/dev/full", "wb") as full:
        done = run("--help", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert b"cannot write to stdout: No space left on device" in done.stderr


def test_reader_that_goes_away(environment):
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"'{BINARY}' chat --help | head -c 1"], env=environment,
                          capture_output=True, check=False)
    assert done.returncode == 0 and done.stderr == b""
