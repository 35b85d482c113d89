"""lanner chat with the small real model, through pipes and on a terminal."""

import os
import signal
import stat
import subprocess
import time

import pytest

from conftest import BINARY

PROMPT = "\ndouble enter to end input >>> "
# Several threads wait for each other, which on a busy machine takes long.
CHAT = ("chat", "--threads", "1")
LONG_ANSWER = "Write a long story about a sailor.\n\n"


def test_piped_question(run, model):
    done = run(*CHAT, model, "--greedy", "--max-new-tokens", "32", stdin=b"What is the capital of France?\n")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "Paris" in text
    assert ">>>" not in text and text.endswith("\n")
    assert done.stderr == b""


def test_piped_blocks_are_one_conversation(run, model):
    done = run(*CHAT, model, "--greedy", "--max-new-tokens", "16", "--verbose",
               stdin=b"My name is\nZebulon.\n\n\nWhat is my name?\n\nexit\n\nnever reached\n")
    assert done.returncode == 0
    assert b"exiting..." not in done.stdout and done.stderr.endswith(b"exiting...\n")
    figures = [line for line in done.stderr.decode().splitlines() if line.startswith("prompt ")]
    assert len(figures) == 2
    prompts = [int(line.split()[1]) for line in figures]
    assert prompts[1] > prompts[0] + 10


def test_end_forgets(run, model):
    question = b"What is the capital of France?\n\n"
    done = run(*CHAT, model, "--greedy", "--max-new-tokens", "12", "--verbose", stdin=question + b"end\n\n" + question)
    figures = [line for line in done.stderr.decode().splitlines() if line.startswith("prompt ")]
    assert len(figures) == 2
    assert figures[0].split()[1] == figures[1].split()[1]
    answers = done.stdout.decode()
    half = len(answers) // 2
    assert answers[:half] == answers[half:]


def test_verbose_shows_the_memory_plan(run, model):
    done = run(*CHAT, model, "--greedy", "--max-new-tokens", "4", "--verbose", stdin=b"Hi\n")
    lines = done.stderr.decode().splitlines()
    plan = [line for line in lines if line.startswith(("weights ", "workspace ", "KV cache ", "free memory "))]
    assert len(plan) == 4
    # The figures stand under each other.
    assert len({line.index(unit) for line in plan for unit in (" MB", " GB", " KB", " TB") if unit in line[:26]}) == 1
    assert "blocks" in plan[2] and "tokens" in plan[2]
    loading = next(line for line in lines if line.startswith("loading "))
    seconds = [float(word) for word, unit in zip(loading.split(), loading.split()[1:]) if unit.startswith("s")]
    assert len(seconds) == 4 and seconds[0] >= max(seconds[1:])


def test_cache_share_changes_the_plan(run, model):
    def cache_tokens(share):
        done = run(*CHAT, model, "--cache-max", share, "--greedy", "--max-new-tokens", "1", "--verbose", stdin=b"Hi\n")
        line = next(line for line in done.stderr.decode().splitlines() if line.startswith("KV cache"))
        return int(line.split(", ")[1].split()[0].replace(",", "") if ", " in line else 0)

    assert cache_tokens("0.01") < cache_tokens("0.2")


def test_greedy_repeats_and_seed_repeats(run, model):
    def answer(*flags):
        return run(*CHAT, model, "--max-new-tokens", "12", *flags, stdin=b"Tell me something.\n").stdout

    assert answer("--greedy") == answer("--greedy")
    assert answer("--seed", "7", "--temperature", "1.5", "--top-k", "0") == \
        answer("--seed", "7", "--temperature", "1.5", "--top-k", "0")
    assert len({answer("--temperature", "1.5", "--top-k", "0", "--top-p", "1") for _ in range(4)}) > 1


def test_stop_string(run, model):
    question = b"What is the capital of France?\n"
    whole = run(*CHAT, model, "--greedy", "--max-new-tokens", "16", stdin=question).stdout
    word = whole.split()[-1]  # b"Paris."
    cut = run(*CHAT, model, "--greedy", "--max-new-tokens", "16", "--stop", word[:3].decode(), stdin=question).stdout
    assert cut == whole[:whole.index(word[:3])] + b"\n"


def test_system_message(run, model):
    def prompt_tokens(*flags):
        done = run(*CHAT, model, "--greedy", "--max-new-tokens", "1", "--verbose", *flags, stdin=b"Hi\n")
        return int(next(line for line in done.stderr.decode().splitlines() if line.startswith("prompt ")).split()[1])

    long_text = "You answer in rhymes. " * 10
    assert prompt_tokens("--system", long_text) > prompt_tokens() + 20
    assert prompt_tokens("--meta-instruction", long_text) == prompt_tokens("--system", long_text)


def test_empty_input(run, model):
    for stdin in (b"", b"\n\n\n", b"end\n"):
        done = run(*CHAT, model, stdin=stdin)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_invalid_utf8_is_told_and_the_chat_goes_on(run, model):
    done = run(*CHAT, model, "--greedy", "--max-new-tokens", "8", stdin=b"caf\xff\n\nHello\n")
    assert done.returncode == 1
    assert b"is not UTF-8" in done.stderr and done.stderr.count(b"\n") == 1
    assert len(done.stdout.strip()) > 0


def test_too_long_prompt(run, model):
    done = run(*CHAT, model, "--greedy", "--session-len", "64", stdin=b"word " * 500 + b"\n")
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"the conversation fills the context of 64 tokens; `end` starts a new one" in done.stderr


def test_truncated_model(run, model, tmp_path):
    path = tmp_path / "cut.gguf"
    with open(model, "rb") as whole:
        path.write_bytes(whole.read(3_000_000))
    done = run(*CHAT, path, stdin=b"Hi\n")
    assert done.returncode == 1
    assert done.stderr.startswith(b"lanner: error: ") and done.stderr.count(b"\n") == 1 and b"cut.gguf" in done.stderr


def test_full_disk(run, model):
    with open("/dev/full", "wb") as full:
        done = run(*CHAT, model, "--greedy", stdin=b"Hi\n\nHi\n", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == b"lanner: error: cannot write to stdout: No space left on device\n"


def test_reader_that_goes_away(environment, model):
    started = time.monotonic()
    command = f"printf '{LONG_ANSWER}' | '{BINARY}' {' '.join(CHAT)} '{model}' --greedy | head -c 3"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and done.stderr == b""
    assert time.monotonic() - started < 240


@pytest.fixture
def piped_chat(environment, model):
    """lanner chat with pipes on all sides, to be interrupted."""
    with subprocess.Popen([BINARY, *CHAT, model, "--greedy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment) as process:
        yield process
        process.kill()


def test_interrupt_ends_a_piped_answer(piped_chat):
    piped_chat.stdin.write(LONG_ANSWER.encode() + b"Never reached.\n")
    piped_chat.stdin.close()
    assert piped_chat.stdout.read(20)  # it has begun, and is far from its end
    piped_chat.send_signal(signal.SIGINT)
    assert piped_chat.wait(60) == 130
    assert piped_chat.stderr.read() == b""


def test_interrupt_ends_the_wait_for_piped_input(piped_chat):
    piped_chat.stdin.write(b"What is the capital of France?\n\nA block without an end\n")
    piped_chat.stdin.flush()
    assert b"Paris" in piped_chat.stdout.readline()
    piped_chat.send_signal(signal.SIGINT)
    assert piped_chat.wait(60) == 130
    assert piped_chat.stdout.read() == b"" and piped_chat.stderr.read() == b""


def test_conversation_on_a_terminal(terminal, model):
    chat = terminal(*CHAT, model, "--greedy", "--max-new-tokens", "32")
    text = chat.wait_for(PROMPT)
    assert "weights" in text and "KV cache" in text
    chat.type("What is the capital of France?\n\n")
    chat.wait_for("Paris")
    chat.wait_for(PROMPT, count=2)
    chat.type("\n")  # an empty block only prompts again
    chat.wait_for(PROMPT, count=3)
    chat.type("exit\n\n")
    chat.wait_for("exiting...")
    assert chat.finish() == 0


def test_interrupt_at_the_prompt_leaves(terminal, model):
    chat = terminal(*CHAT, model)
    chat.wait_for(PROMPT)
    chat.type("half a line")
    chat.wait_for("half a line")
    chat.press_interrupt()
    chat.wait_for("exiting...")
    assert chat.finish() == 0


def test_end_of_input_at_the_prompt_leaves(terminal, model):
    chat = terminal(*CHAT, model)
    chat.wait_for(PROMPT)
    chat.wait_for_editing()
    chat.type(b"\x04")
    assert chat.finish() == 0


def test_interrupt_while_generating_drops_the_turn(terminal, model):
    chat = terminal(*CHAT, model, "--greedy", "--verbose")
    before = len(chat.wait_for(PROMPT))
    chat.type(LONG_ANSWER)
    end = time.monotonic() + 240
    while len(chat.text()) < before + len(LONG_ANSWER) + 40 and time.monotonic() < end:
        chat.read(0.5)
    chat.press_interrupt()
    chat.wait_for(PROMPT, count=2)
    chat.type("What is the capital of France?\n\n")
    chat.wait_for("Paris")
    text = chat.wait_for(PROMPT, count=3)
    prompts = [int(line.split()[1]) for line in text.splitlines() if line.startswith("prompt ")]
    assert len(prompts) == 2
    # The aborted turn is no part of the second prompt, which is of about the length of the first.
    assert abs(prompts[1] - prompts[0]) < 10
    chat.type("exit\n\n")
    assert chat.finish() == 0


def test_history(terminal, model, environment):
    chat = terminal(*CHAT, model, "--greedy", "--max-new-tokens", "4")
    chat.wait_for(PROMPT)
    chat.type("My remembered line é上\n\n")
    chat.wait_for(PROMPT, count=2)
    chat.type("exit\n\n")
    assert chat.finish() == 0
    path = os.path.join(environment["HOME"], ".local", "state", "lanner", "chat_history")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    again = terminal(*CHAT, model, "--greedy", "--max-new-tokens", "4")
    again.wait_for(PROMPT)
    again.wait_for_editing()
    again.type(b"\x10\x10")  # Ctrl-P twice: over "exit" to the line before
    again.wait_for("My remembered line é上")
    again.press_interrupt()
    assert again.finish() == 0


def test_editing_a_line(terminal, model):
    chat = terminal(*CHAT, model)
    chat.wait_for(PROMPT)
    chat.wait_for_editing()
    chat.type("éxix\x7ft\x01\x04e\x05\n\n")  # é x i x, delete, t; Ctrl-A, delete é, e; Ctrl-E: "exit"
    chat.wait_for("exiting...")
    assert chat.finish() == 0


def test_history_does_not_follow_a_relative_path(terminal, model, environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment["XDG_STATE_HOME"] = "state"
    chat = terminal(*CHAT, model)
    chat.wait_for(PROMPT)
    chat.type("exit\n\n")
    assert chat.finish() == 0
    assert not (tmp_path / "state").exists()
    assert os.path.exists(os.path.join(environment["HOME"], ".local", "state", "lanner", "chat_history"))


def test_no_history_possible(terminal, model, environment):
    environment["XDG_STATE_HOME"] = "/dev/null/nowhere"
    chat = terminal(*CHAT, model)
    text = chat.wait_for(PROMPT)
    assert "error" not in text
    chat.type("exit\n\n")
    assert chat.finish() == 0


def test_prompt_does_not_land_in_a_file(terminal, model, tmp_path):
    with open(tmp_path / "answer.txt", "wb") as file:
        chat = terminal(*CHAT, model, "--greedy", "--max-new-tokens", "32", stdout=file)
        chat.wait_for(PROMPT)
        chat.type("What is the capital of France?\n\n")
        chat.wait_for(PROMPT, count=2)
        chat.type("exit\n\n")
        assert chat.finish() == 0
    content = (tmp_path / "answer.txt").read_text()
    assert "Paris" in content and ">>>" not in content


def test_images_are_refused_politely(run, model):
    done = run(*CHAT, model, stdin=b"/image\n\n/image cat.png\n\n")
    assert done.returncode == 1  # no block got an answer
    assert done.stdout == b""
    assert done.stderr == (b"Error: /image requires an image path or URL\n"
                           b"Error: images are not available yet in this version\n")
