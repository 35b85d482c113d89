"""What stands in a folder for a host, and how it gets there."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.resources
import json
import os
import re
import secrets
import shutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from lanner import __version__
from lanner._program import program_path
from lanner.deploy.packages import debian_packages
from lanner.errors import InvalidArgumentError, LannerError

TARGETS = ("openxlab", "modelscope", "hf-space", "docker")
HOST_PORT = 7860  # which the hosts of demos expect
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w./-]+)?", re.ASCII)
_MODEL_FOLDER = "model"


@dataclass
class Plan:
    """What a folder is to be.

    Attributes:
        target: one of `TARGETS`.
        folder: where it is to stand.
        model: ORGANIZATION/NAME on a hub, or a file or folder of this machine.
        copy_model: put the local model into the folder.
        hub: "huggingface" or "modelscope": where a model that is named by its id is downloaded from.
        title: one line.
        package: what pip installs there for this package; empty: this version of it, from PyPI.
        port: on which the page listens.
        flags: further flags of ``lanner serve gradio``.
        force: write into a folder that is not empty.
    """

    target: str
    folder: Path
    model: str
    copy_model: bool = False
    hub: str = "huggingface"
    title: str = ""
    package: str = ""
    port: int = HOST_PORT
    flags: Sequence[str] = field(default_factory=list[str])
    force: bool = False


def write_folder(plan: Plan) -> None:
    """Writes the folder of a plan: beside its place first, then all at once.

    In a folder that is not empty (``force``) the new files replace those of their names, and others stay.

    Raises:
        LannerError: the plan contradicts itself, or the folder cannot be written.
    """
    local = _check_model(plan)
    _check_place(plan)
    texts = _texts(plan, local)
    try:
        with _beside(plan.folder) as unfinished:
            for name, text in texts.items():
                (unfinished / name).write_text(text, encoding="utf-8")
            if local is not None:
                _copy(local, unfinished / _MODEL_FOLDER)
            _move_into_place(unfinished, plan.folder)
    except OSError as error:
        raise LannerError(f"{error.filename or plan.folder}: {error.strerror or error}", "io") from error


def _check_model(plan: Plan) -> Path | None:
    """The local model that is to be copied, or None for one of a hub."""
    if not plan.model.isprintable():
        raise InvalidArgumentError(f"--model {plan.model!a}: has characters that cannot be printed")
    path = Path(plan.model)
    if not path.exists():
        if plan.copy_model:
            raise InvalidArgumentError(f"--model {plan.model}: is no local path, and --copy-model copies one")
        if not _HUB_ID.fullmatch(plan.model):
            raise InvalidArgumentError(
                f"--model {plan.model}: is no local path, and no model of a hub (those are called ORGANIZATION/NAME)"
            )
        return None
    if not plan.copy_model:
        raise InvalidArgumentError(
            f"--model {plan.model}: is a model of this machine, which the host does not have: "
            "--copy-model puts it into the folder, or name a model of a hub (ORGANIZATION/NAME)"
        )
    if not path.is_file() and not path.is_dir():
        raise InvalidArgumentError(f"--model {plan.model}: is neither a file nor a folder")
    path = path.resolve()
    folder = plan.folder.resolve()
    if path.is_dir() and (folder == path or path in folder.parents):
        raise InvalidArgumentError(f"{plan.folder}: lies in the model's own folder")
    return path


def _check_place(plan: Plan) -> None:
    if not plan.folder.exists():
        return
    if not plan.folder.is_dir():
        raise InvalidArgumentError(f"{plan.folder}: is a file")
    if any(plan.folder.iterdir()) and not plan.force:
        raise InvalidArgumentError(f"{plan.folder}: is not empty; --force replaces the files of this verb in it")


def _texts(plan: Plan, local: Path | None) -> dict[str, str]:
    """Name and text of every file but the model's."""
    name = local.name if local is not None else plan.model
    title = plan.title or f"Chat with {name.rpartition('/')[2]}"
    values = {
        "model": repr(plan.model) if local is None else f"str(FOLDER / {_MODEL_FOLDER!r} / {name!r})",
        "model_name": name,
        "flags": repr(list(plan.flags)),
        "from_modelscope": str(plan.hub == "modelscope"),
        "package": plan.package or f"lanner[ui]=={__version__}",
        "port": str(plan.port),
        "title": title,
        "version": __version__,
        "front_matter": _front_matter(plan, title, local),
    }
    files = {"app.py": "app.py", "requirements.txt": "requirements.txt", "README.md": f"README.{plan.target}.md"}
    if plan.target == "docker":
        files |= {"Dockerfile": "Dockerfile", ".dockerignore": "dockerignore"}
    if plan.target == "modelscope":
        files["ms_deploy.json"] = "ms_deploy.json"
    if local is not None:
        files[".gitattributes"] = "gitattributes"
    templates = importlib.resources.files("lanner.deploy") / "templates"
    texts = {
        file: Template((templates / f"{template}.in").read_text("utf-8")).substitute(values)
        for file, template in files.items()
    }
    texts["packages.txt"] = "".join(f"{package}\n" for package in debian_packages(program_path()))
    return texts


def _front_matter(plan: Plan, title: str, local: Path | None) -> str:
    """The head of README.md from which a host reads its settings, as YAML; empty where the host reads none.

    Sources: https://huggingface.co/docs/hub/spaces-config-reference, https://www.modelscope.cn/docs/studios/studio-card;
    OpenXLab asks for these things on its page.
    """
    listed = [plan.model.partition(":")[0]] if local is None else []
    of_huggingface = {"models": listed} if listed and plan.hub == "huggingface" else {}
    space = {"title": title, "emoji": "💬", "colorFrom": "blue", "colorTo": "green", "pinned": False, **of_huggingface}
    settings: dict[str, Any]
    if plan.target == "hf-space":
        gradio = {"sdk": "gradio", **_gradio_version()}
        settings = {**space, **gradio, "python_version": "3.11", "app_file": "app.py"}
    elif plan.target == "docker":
        settings = {**space, "sdk": "docker", "app_port": plan.port}
    elif plan.target == "modelscope":
        of_modelscope = {"models": listed} if listed and plan.hub == "modelscope" else {}
        settings = {"domain": ["nlp"], "tags": ["chat"], **of_modelscope, "deployspec": {"entry_file": "app.py"}}
    else:
        return ""
    # JSON is YAML, with every string in quotes.
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()]
    return "\n".join(["---", *lines, "---"])


def _gradio_version() -> dict[str, str]:
    """The Gradio that this machine has, with which --check tries the page; without one, the host takes its newest."""
    try:
        return {"sdk_version": importlib.metadata.version("gradio")}
    except importlib.metadata.PackageNotFoundError:
        return {}


@contextlib.contextmanager
def _beside(folder: Path) -> Generator[Path, None, None]:
    """A new folder beside a place, which is gone in the end if it is still there."""
    place = folder.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{place.name}.{secrets.token_hex(4)}.unfinished")
    unfinished.mkdir()
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy(model: Path, folder: Path) -> None:
    """A file or folder, as it is named; what links lead to is copied, as a hub's cache consists of links."""
    folder.mkdir()
    try:
        if model.is_dir():
            shutil.copytree(model, folder / model.name, ignore=shutil.ignore_patterns(".git"))
        else:
            shutil.copyfile(model, folder / model.name)
    except shutil.Error as error:  # of several files
        source, _, why = error.args[0][0]
        raise LannerError(f"{source}: {why}", "io") from error


def _move_into_place(unfinished: Path, folder: Path) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        os.rename(unfinished, folder.resolve())  # over an empty folder, too
        return
    for new in sorted(unfinished.iterdir()):
        old = folder / new.name
        if old.is_dir() and not old.is_symlink():
            old.rename(unfinished / f"{new.name}.old")
        new.replace(old)
