"""A pipeline in the life of a process: Ctrl-C, fork, garbage collection, exit, threads."""

import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from lanner import GenerationConfig


@pytest.fixture
def run(model):
    """Runs Python with `pipe` open, in a process of its own."""

    def start(code, **more):
        head = f"""
            import gc, os, signal, sys, threading, time
            from lanner import GenerationConfig, LannerError, TurbomindEngineConfig, pipeline
            pipe = pipeline({model!r}, TurbomindEngineConfig(device="cpu", session_len=2048))
            LONG = GenerationConfig(max_new_tokens=1800, ignore_eos=True)
        """
        text = textwrap.dedent(head) + textwrap.dedent(code)
        return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, **more)

    return start


def test_ctrl_c_interrupts_a_call_and_the_pipeline_goes_on(run):
    done = run("""
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.time()
        try:
            pipe(["Tell a story."] * 8, gen_config=LONG)
        except KeyboardInterrupt:
            print("interrupted", time.time() - start < 1.5)
        while pipe.stats()["running"]:
            time.sleep(0.01)
        print(pipe("Hi.", gen_config=GenerationConfig(max_new_tokens=2)).generate_token_len)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted True\n2\n", "")


def test_ctrl_c_while_prompts_are_submitted_leaves_none_behind(run):
    done = run("""
        prompts = ["word " * 1500 + str(i) for i in range(300)]
        for delay in (0.02, 0.05, 0.1):
            signal.setitimer(signal.ITIMER_REAL, delay)
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                pipe(prompts, gen_config=LONG)
            except KeyboardInterrupt:
                print("interrupted")
        for _ in range(1000):
            left = pipe.stats()
            if left["running"] + left["waiting"] == 0:
                break
            time.sleep(0.01)
        print(left["running"] + left["waiting"])
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n" * 3 + "0\n", "")


def test_ctrl_c_ends_a_long_prompt_of_logits(run):
    done = run("""
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.time()
        try:
            pipe.get_logits(list(range(1, 2000)))
        except KeyboardInterrupt:
            print("interrupted", time.time() - start < 2)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted True\n", "")


def test_close_ends_what_other_threads_wait_for(run):
    done = run("""
        stream = pipe.stream_infer("Tell a story.", gen_config=LONG)
        next(stream)
        def wait():
            try:
                pipe.get_ppl([list(range(1, 2000))] * 50)
            except LannerError as error:
                print(error.code)
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        pipe.close()
        waiting.join(10)
        print(waiting.is_alive())
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cancelled\nFalse\n", "")


def test_the_engine_waits_for_no_python_thread(run):
    """A request that ends while another thread holds the GIL must not stop those that go on."""
    done = run("""
        long = pipe.stream_infer("Tell a story.", gen_config=LONG)
        short = pipe.stream_infer("Hi.", gen_config=GenerationConfig(max_new_tokens=4, ignore_eos=True))
        next(long), next(short)
        sys.setswitchinterval(60)
        end = time.time() + 1.5
        while time.time() < end:  # the GIL is held
            pass
        print(next(long).generate_token_len > 30)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_without_descriptors_a_call_fails_and_the_next_works(run):
    done = run("""
        import resource
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            pipe("Hi.")
        except LannerError as error:
            print(error.code)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(pipe("Hi.", gen_config=GenerationConfig(max_new_tokens=1)).generate_token_len)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "resource_exhausted\n1\n", "")


def test_a_stream_of_before_a_fork_is_told(run):
    done = run("""
        stream = pipe.stream_infer("Tell a story.", gen_config=LONG)
        next(stream)
        child = os.fork()
        if child == 0:
            try:
                list(stream)
            except LannerError as error:
                print(error, flush=True)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(next(stream).finish_reason)
    """)
    assert done.stdout == "this request belongs to the process that was forked: open a pipeline after the fork\n0\nNone\n"


def test_ctrl_c_ends_a_program_with_its_usual_status(run):
    done = run("""
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        pipe("Tell a story.", gen_config=LONG)
    """)
    assert done.returncode in (-signal.SIGINT, 130)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_a_forked_process_is_told_and_the_parent_goes_on(run):
    done = run("""
        child = os.fork()
        if child == 0:
            try:
                pipe("Hi.")
            except LannerError as error:
                print(error, flush=True)
            pipe.close()
            del pipe
            gc.collect()
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(pipe("Hi.", gen_config=GenerationConfig(max_new_tokens=2)).generate_token_len)
    """)
    assert done.stdout == "this pipeline belongs to the process that opened it: open one after the fork\n0\n2\n"
    assert done.returncode == 0


def test_a_pipeline_that_nobody_holds_goes_away(run):
    done = run("""
        def threads():
            return len(os.listdir("/proc/self/task"))
        opened = threads()
        stream = pipe.stream_infer("Tell a story.", gen_config=LONG)
        next(stream)
        del pipe, stream
        gc.collect()
        print(threads() < opened)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "raise RuntimeError('mine')", "del sys.modules['lanner']"])
def test_a_program_ends_while_a_request_runs(run, end):
    done = run(f"""
        stream = pipe.stream_infer("Tell a story.", gen_config=LONG)
        next(stream)
        {end}
    """)
    assert done.returncode == (3 if "exit" in end else 1 if "raise" in end else 0)
    assert ("mine" in done.stderr) == ("mine" in end)
    assert "ignored" not in done.stderr


def test_a_daemon_thread_that_waits_does_not_keep_the_program(run):
    done = run("""
        threading.Thread(target=pipe, args=("Tell a story.",), kwargs={"gen_config": LONG}, daemon=True).start()
        time.sleep(0.3)
        print("end")
    """)
    assert (done.returncode, done.stdout) == (0, "end\n")


def test_threads_share_a_pipeline_and_others_run_meanwhile(pipe, short):
    expected = [pipe(f"Say {i}.", gen_config=short).text for i in range(8)]
    texts = [None] * 8
    counted = 0

    def ask(i):
        texts[i] = pipe(f"Say {i}.", gen_config=short).text

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counted += 1  # the GIL is free while they wait
    assert texts == expected
    assert counted > 1000


def test_a_bar_shows_progress(pipe, capsys):
    pipe(["One.", "Two."], gen_config=GenerationConfig(max_new_tokens=2), use_tqdm=True)
    assert "2/2" in capsys.readouterr().err
