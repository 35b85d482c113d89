"""scripts/setup.sh on a machine made of fakes: PATH holds nothing but them and a few plain tools.

Each fake writes its name and arguments to a log. Those that install also change what the others answer.
"""

import pathlib
import shutil
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "setup.sh"
PLAIN_TOOLS = ["bash", "sh", "awk", "sort", "head", "sed", "grep", "cat", "env", "mktemp", "rm", "cp", "chmod", "mkdir", "dirname"]

FAKES = {
    "dpkg-query": """
case "$*" in
  *Version*) cat "$STATE/version_of_libboost-dev" 2>/dev/null ;;
  *) for name in $(cat "$STATE/installed"); do echo "$name installed"; done ;;
esac""",
    "apt-get": """
case "$*" in
  *update*) [ ! -e "$STATE/no_network" ] ;;
  *install*)
    for word in "$@"; do
      echo "$word" >>"$STATE/installed"
      [ "$word" != cargo-web ] || { echo 'echo cargo 1.96.0' >"$FAKE_BIN/cargo"; chmod +x "$FAKE_BIN/cargo"; }
    done ;;
esac""",
    "apt-cache": 'echo "  Candidate: $(cat "$STATE/candidate_$2" 2>/dev/null || echo "(none)")"',
    "id": 'cat "$STATE/uid"',
    "sudo": 'exec "$@"',
    "cargo": 'echo "cargo $(cat "$STATE/cargo_version") (0123456 2026-01-01)"',
    # rustup's installer arrives as a script; it puts a new cargo under CARGO_HOME.
    "curl": """
while [ $# -gt 0 ]; do [ "$1" != -o ] || out=$2; shift; done
cat >"$out" <<'END'
echo "rustup-init $*" >>"$STATE/log"
mkdir -p "$HOME/.cargo/bin"
printf '#!/bin/sh\\necho cargo 1.99.0\\n' >"$HOME/.cargo/bin/cargo"
chmod +x "$HOME/.cargo/bin/cargo"
END""",
}


class Machine:
    def __init__(self, folder):
        self.bin = folder / "bin"
        self.state = folder / "state"
        self.home = folder / "home"
        for path in (self.bin, self.state, self.home):
            path.mkdir()
        for tool in PLAIN_TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        for name, body in FAKES.items():
            self.fake(name, body)
        self.set(installed="", uid="0", cargo_version="1.95.0", log="")
        self.remove()

    def fake(self, name, body):
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"$STATE/log"\n{body}\n')
        path.chmod(0o755)

    def set(self, **values):
        for name, value in values.items():
            (self.state / name).write_text(value)

    def remove(self, *packages):
        self.set(installed="".join(f"{name}\n" for name in self.all_packages() if name not in packages))

    def all_packages(self):
        """Every package that any purpose wants, as setup.sh itself prints them where there is no apt-get."""
        if not hasattr(self, "packages"):
            hidden = self.bin / "hidden"
            (self.bin / "apt-get").rename(hidden)
            lines = self.run("--for", "test", "--for", "lint", "--for", "fuzz").stderr.splitlines()
            hidden.rename(self.bin / "apt-get")
            self.packages = [line.split()[0] for line in lines if line.startswith("  ")]
            self.set(log="")
        return self.packages

    def run(self, *arguments):
        environment = {"PATH": str(self.bin), "HOME": str(self.home), "STATE": str(self.state), "FAKE_BIN": str(self.bin)}
        return subprocess.run(
            [self.bin / "bash", SCRIPT, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def log(self, *names):
        lines = (self.state / "log").read_text().splitlines()
        return [line for line in lines if line.split()[0] in names]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_nothing_missing_does_nothing(machine):
    result = machine.run("--for", "test", "--for", "lint", "--for", "fuzz")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert machine.log("apt-get", "sudo", "curl", "apt-cache") == []


def test_missing_packages_are_named_with_reasons_and_installed(machine):
    machine.remove("mold", "libedit-dev")
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert "  mold                 links fast\n" in result.stderr
    assert "  libedit-dev          line editing in chat\n" in result.stderr
    assert "  g++" not in result.stderr
    update, install = machine.log("apt-get")
    assert update.endswith(" update")
    assert install.endswith(" install -y --no-install-recommends mold libedit-dev")
    assert machine.log("sudo") == []
    machine.set(log="")
    assert machine.run().stderr == ""  # the second time all is there
    assert machine.log("apt-get") == []


def test_a_newer_system_has_its_own_boost(machine):
    machine.remove("libboost1.81-dev", "mold")
    machine.set(**{"candidate_libboost-dev": "1.83.0.1ubuntu2"})
    assert machine.run().returncode == 0
    assert machine.log("apt-get")[-1].endswith(" mold libboost-dev")
    machine.remove("libboost1.81-dev")
    machine.set(**{"version_of_libboost-dev": "1.83.0.1ubuntu2", "log": ""})
    assert machine.run().stderr == ""
    assert machine.log("apt-get", "apt-cache") == []


def test_debian_12_has_a_second_boost(machine):
    machine.remove("libboost1.81-dev")
    machine.set(**{"candidate_libboost-dev": "1.74.0.3", "candidate_libboost1.81-dev": "1.81.0-5"})
    assert machine.run().returncode == 0
    assert machine.log("apt-get")[-1].endswith(" libboost1.81-dev")


def test_a_package_that_was_removed_but_left_its_settings_is_missing(machine):
    machine.fake("dpkg-query", 'for name in $(cat "$STATE/installed"); do echo "$name installed"; done; echo "mold config-files"')
    machine.remove("mold")
    machine.run()
    assert machine.log("apt-get")[-1].endswith(" mold")


def test_tools_of_a_purpose_are_wanted_for_that_alone(machine):
    machine.remove("clang-19", "clang-tidy-19")
    assert machine.run("--for", "test").stderr == ""
    assert machine.run("--for", "lint").returncode == 0
    assert machine.log("apt-get")[-1].endswith(" clang-tidy-19")
    assert machine.run("--for", "fuzz").returncode == 0
    assert machine.log("apt-get")[-1].endswith(" clang-19")


def test_sudo_only_where_not_root_and_said(machine):
    machine.remove("mold")
    machine.set(uid="1000")
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert "you are not root: apt-get runs with sudo" in result.stderr
    assert len(machine.log("sudo")) == 2
    assert machine.log("sudo")[1].endswith("mold")


def test_not_root_and_no_sudo_tells_what_to_run(machine):
    machine.remove("mold")
    machine.set(uid="1000")
    (machine.bin / "sudo").unlink()
    result = machine.run()
    assert result.returncode == 1
    assert "Have an administrator run: apt-get install mold" in result.stderr
    assert machine.log("apt-get") == []


def test_no_network_is_one_clear_line(machine):
    machine.remove("mold")
    machine.set(no_network="")
    result = machine.run()
    assert result.returncode == 1
    assert "apt-get update failed" in result.stderr
    assert len(machine.log("apt-get")) == 1


def test_without_apt_the_list_is_printed(machine):
    (machine.bin / "apt-get").unlink()
    result = machine.run("--for", "fuzz")
    assert result.returncode == 1
    assert "no apt-get" in result.stderr and "cargo 1.87 or newer" in result.stderr and "SETUP=0" in result.stderr
    for name in ("g++", "ninja-build", "libclang-rt-19-dev"):
        assert f"  {name} " in result.stderr
    assert "clang-tidy-19" not in result.stderr


@pytest.mark.parametrize("version", ["1.84.1", "0.66.0", "1.9.0"])
def test_old_cargo_gets_rustup(machine, version):
    machine.set(cargo_version=version, candidate_cargo="0.66.0+ds1-1")
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert "installing the stable Rust toolchain with rustup" in result.stderr
    (curl,) = machine.log("curl")
    assert curl.startswith("curl --proto =https --tlsv1.2 -sSf -o ") and curl.endswith(" https://sh.rustup.rs")
    expected = "rustup-init -y --profile minimal --component rustfmt --default-toolchain stable --no-modify-path"
    assert machine.log("rustup-init") == [expected]
    machine.set(log="")
    assert machine.run().stderr == ""  # the new one comes first, though the old one is still on PATH
    assert machine.log("curl") == []


@pytest.mark.parametrize("version", ["1.87.0", "1.100.0", "2.0.0"])
def test_new_enough_cargo_is_kept(machine, version):
    machine.set(cargo_version=version)
    assert machine.run().stderr == ""
    assert machine.log("curl", "apt-get") == []


def test_a_cargo_that_only_fails_counts_as_none(machine):
    machine.fake("cargo", "echo 'error: no default toolchain' >&2; exit 1")
    assert machine.run().returncode == 0
    assert len(machine.log("curl")) == 1


def test_cargo_of_the_distribution_is_taken_before_rustup(machine):
    (machine.bin / "cargo").unlink()
    machine.set(candidate_cargo="0.66.0+ds1-1", **{"candidate_cargo-web": "1.96.0+dfsg1-1~deb12u2"})
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert machine.log("apt-get")[-1].endswith(" cargo-web")
    assert machine.log("curl") == []


def test_rustup_that_cannot_be_downloaded(machine):
    machine.set(cargo_version="1.0.0")
    machine.fake("curl", "exit 6")
    result = machine.run()
    assert result.returncode == 1
    assert "could not download rustup's installer" in result.stderr
    assert machine.log("rustup-init") == []


@pytest.mark.parametrize("arguments", [["--for", "fun"], ["--for"], ["build"]])
def test_wrong_arguments(machine, arguments):
    result = machine.run(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("setup: ")
