#!/usr/bin/env python3
"""Runs the steps of a Dockerfile on a Debian machine without Docker, in folders that debootstrap fills.

    sudo deploy/docker/run_steps.py FOLDER [--binary build/lanner] [--models PATH] [--mirror URL] [-- ARGUMENTS]

Of deploy/docker/cpu.Dockerfile each stage becomes FOLDER/NAME: FROM by debootstrap, COPY by copying, RUN in a chroot.
With --binary the build stage is left out and this program, built before, stands for what it makes. --models PATH, a file,
is copied into /models, as `docker run -v` would show it. In the end the last stage's entry point runs as its user with
ARGUMENTS (--help where there are none), and its exit code is this program's.
For checking what a Dockerfile says; an image is made by Docker.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
IGNORED = (ROOT / "deploy/docker/cpu.Dockerfile.dockerignore").read_text(encoding="utf-8").split()
SUITE = {"debian:bookworm-slim": "bookworm"}


def steps_of(dockerfile):
    """(word, rest) of each instruction."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for step in re.sub(r"\\\n", " ", "\n".join(lines)).split("\n"):
        if step.strip():
            word, rest = step.split(maxsplit=1)
            yield word.upper(), rest.strip()


class Stage:
    def __init__(self, folder, image, mirror):
        self.folder, self.workdir, self.user, self.entry, self.environment = folder, "/", "0", [], {}
        if folder.exists():
            sys.exit(f"run_steps: {folder} is there already, and each stage begins with nothing")
        run("debootstrap", "--variant=minbase", SUITE[image], str(folder), *([mirror] if mirror else []))
        shutil.copy("/etc/resolv.conf", folder / "etc/resolv.conf")

    def place(self, path):
        return self.folder / path.lstrip("/")

    def chroot(self, command, user="0"):
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **self.environment}
        switch = [f"--userspec={user}:{user}"] if user != "0" else []
        inside = command if isinstance(command, list) else ["/bin/sh", "-c", f"cd '{self.workdir}' && {command}"]
        return subprocess.run(["chroot", *switch, str(self.folder), *inside], env=environment, check=False).returncode


def run(*command):
    subprocess.run(command, check=True)


def copy(stages, stage, rest):
    source, target = [word for word in rest.split() if not word.startswith("--")]
    origin = re.search(r"--from=(\S+)", rest)
    if origin:
        stage.place(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(stages[origin[1]].place(source) if origin[1] in stages else stages["binary"], stage.place(target))
        return
    assert source == "." and target == ".", "only the whole context is copied"
    ignore = shutil.ignore_patterns(*(pattern.removeprefix("**/") for pattern in IGNORED))
    shutil.copytree(ROOT, stage.place(stage.workdir), ignore=ignore, symlinks=True, dirs_exist_ok=True)


def build(arguments):
    stages = {"binary": arguments.binary}
    stage = None
    for word, rest in steps_of(ROOT / "deploy/docker/cpu.Dockerfile"):
        print(f"== {word} {rest}", flush=True)
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            stage = None if arguments.binary and name else Stage(arguments.folder / (name or "last"), image, arguments.mirror)
            if stage:
                stages[name or "last"] = stage
        elif stage is None:
            print("   (left out: the program is there already)")
        elif word == "WORKDIR":
            stage.workdir = rest
            stage.place(rest).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            copy(stages, stage, rest)
        elif word == "RUN":
            if code := stage.chroot(rest):
                sys.exit(f"run_steps: RUN ended with {code}")
        elif word == "ENV":
            stage.environment.update([rest.split("=", 1)])
        elif word == "USER":
            stage.user = rest
        elif word == "ENTRYPOINT":
            stage.entry = json.loads(rest)
        elif word not in ("EXPOSE", "STOPSIGNAL"):
            sys.exit(f"run_steps: {word} is not known here")
    return stages["last"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--binary", type=pathlib.Path)
    parser.add_argument("--models", type=pathlib.Path)
    parser.add_argument("--mirror", default="")
    own, _, others = " ".join(sys.argv[1:]).partition(" -- ")
    arguments = parser.parse_args(own.split())
    arguments.arguments = others.split() or ["--help"]
    if os.geteuid() != 0:
        parser.error("debootstrap and chroot need root")
    last = build(arguments)
    if arguments.models:
        last.place("/models").mkdir()
        shutil.copy(arguments.models, last.place("/models"))
    print("== " + " ".join(last.entry + arguments.arguments), flush=True)
    sys.exit(last.chroot(last.entry + arguments.arguments, last.user))


if __name__ == "__main__":
    main()
