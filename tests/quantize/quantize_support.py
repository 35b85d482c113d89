"""The program, the text that tests calibrate with, and a tokenizer that needs no training."""

import os
import pathlib
import re
import signal
import subprocess
import time

import numpy as np
import numpy_awq
import tiny_models
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LANNER_BINARY", str(REPOSITORY / "build" / "lanner"))
TEXT = (REPOSITORY / "data/wikitext2/valid.txt").read_bytes()[:20_000].decode("utf-8", "ignore")


def byte_letters():
    """The letter that stands for each byte in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def write_tokenizer(folder):
    """One whose token ids are the bytes of the text."""
    tokenizer = Tokenizer(models.BPE({letter: byte for byte, letter in byte_letters().items()}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


GROUP = 32
SAMPLES, SEQLEN = 6, 80
FEW = ("--calib-samples", SAMPLES, "--calib-seqlen", SEQLEN)


def reference_of(model):
    """A model in NumPy that has read the windows that FEW asks for."""
    reference = numpy_awq.Llama(model.config, model.tensors)
    for window in numpy_awq.windows(list(TEXT.encode()), SAMPLES, SEQLEN):
        reference.forward(window)
    return reference


def check_same_tensors(ours, wanted):
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape, name
        assert ours[name].tobytes() == value.tobytes(), name


def check_same_files(whole, other):
    for path in whole.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def end_when(ready, how, arguments, environment):
    """Starts the program and sends it a signal as soon as ready(): exit code, stdout, stderr."""
    process = subprocess.Popen([BINARY, *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a job in the background ignores it
    while process.poll() is None and not ready():
        time.sleep(0.001)
    process.send_signal(how)
    out, said = process.communicate(timeout=60)
    return process.returncode, out, said


def check_it_goes_on(run, environment, folder, flags, pattern):
    """A run that is killed behind three layers is refused to another verb, and with --resume writes the same bytes. Its files
    `pattern` are the layers that are done."""
    whole, killed, part = folder / "whole", folder / "killed", folder / "killed.part"
    done = run(*flags, "--work-dir", whole)
    assert done.returncode == 0, done.stderr
    code, _, _ = end_when(lambda: len(list(part.glob(f"unfinished/{pattern}"))) >= 3, signal.SIGKILL,
                          [*flags, "--work-dir", killed], environment)
    assert code == -signal.SIGKILL and not killed.exists()
    refused = run("lite", "auto_awq", *flags[2:], "--w-group-size=64", "--work-dir", killed, "--resume")
    assert refused.returncode == 1 and b"begun with another" in refused.stderr and part.exists()
    done = run(*flags, "--work-dir", killed, "--resume")
    assert done.returncode == 0, done.stderr
    assert not part.exists()
    check_same_files(whole, killed)


def check_report(run, done):
    """That the report of a run says what the command says that stands in it."""
    assert done.returncode == 0, done.stderr
    report = done.stdout.decode()
    compared = run(*re.search(r"\(lanner (eval compare .*)\)\n", report)[1].split())
    assert compared.returncode == 0 and compared.stdout.decode() in report
    assert report.count("\n  before: ") == report.count("\n  after:  ") == 3
    return report


def odd_groups():
    """A matrix (64, 64) with groups that are constant, of one sign, tiny, or have one value far from the others."""
    odd = np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32)
    odd[0, :32], odd[1, :32], odd[2], odd[3, :32], odd[4, 5] = 0.25, 0, np.abs(odd[2]) + 3, odd[3, :32] * 1e-7, 300
    odd[5] = -np.abs(odd[5]) - 2
    odd[6] = np.rint(odd[6] * 2) / 2
    return odd


def wide_model(layers):
    """A Llama of layers as wide as such tests may be: eight of them take some seconds."""
    model = tiny_models.llama()
    rng = np.random.default_rng(5)
    hidden, mlp = 256, 512
    config = {**model.config, "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers,
              "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 1024, "attention_bias": False,
              "mlp_bias": False}
    config.pop("head_dim", None)
    shapes = tiny_models.llama_shapes(config)
    model.config = config
    model.tensors = {name: (rng.standard_normal(shape) * (0.06 if len(shape) == 2 else 0.1) + (len(shape) == 1)).astype(np.float32)
                     for name, shape in shapes.items()}
    return model
