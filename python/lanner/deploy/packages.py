"""Which Debian packages the native program needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lanner.errors import LannerError

# A library that the program may be linked to, and the package that has it in Debian 12, for which the project's own
# images are made. What only other libraries want comes with their packages.
_PACKAGE_OF = {
    "libcrypto.so.3": "libssl3",
    "libedit.so.2": "libedit2",
    "libfmt.so.9": "libfmt9",
    "libsentencepiece.so.0": "libsentencepiece0",
    "libssl.so.3": "libssl3",
    "libstdc++.so.6": "libstdc++6",
}
_SYSTEM = ("/lib", "/usr/lib", "/usr/local/lib")


def debian_packages(program: Path) -> list[str]:
    """The packages that a Debian without them must install; libraries that came with the program want none.

    ``ca-certificates`` is always there: a model is downloaded over TLS.

    Raises:
        LannerError: the program is none.
    """
    try:
        listed = subprocess.run(["ldd", str(program)], capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise LannerError(f"{program}: ldd cannot read it: {' '.join(said.split())}", "io") from None
    packages = {"ca-certificates"}
    for line in listed.stdout.splitlines():
        name, found, place = line.strip().partition(" => ")
        if found and name in _PACKAGE_OF and (place.startswith(_SYSTEM) or place == "not found"):
            packages.add(_PACKAGE_OF[name])
    return sorted(packages)
