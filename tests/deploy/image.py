"""Carries a Dockerfile's steps out where there is no Docker, and runs what they make.

Every step runs in a root of its own: an overlay of a clean folder over this machine's, in which homes,
this checkout and temporary files are hidden. In place of the base image stands this machine's Python. It
takes root and Linux.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.deploy.dockerfile import Instruction, is_sent, read_stages
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.deploy.dockerfile import Stage

_PYTHON = "/usr/bin/python3.11"
_HIDDEN = ("/home", "/media", "/mnt", "/root", "/srv", "/tmp", str(ROOT))
_ENTER = r"""
root=$1 overlay=$2 user=$3 folder=$4; shift 4
[ "$BOUND" = +all ] || ip link set lo up
mount -t overlay overlay -o "$overlay" "$root"
while [ "$1" != -- ]; do
  where=$root${1#*:}
  case $1 in
    tmpfs:*) [ ! -d "$where" ] || mount -t tmpfs -o "$(stat -c mode=%a,uid=%u,gid=%g "$where")" none "$where" ;;
    *) mkdir -p "$where"; mount --bind "${1%%:*}" "$where" ;;
  esac
  shift
done
shift
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
exec chroot "$root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
  --no-new-privs --inh-caps=-all --bounding-set "$BOUND" env -i --chdir "$folder" "$@"
"""


def lacking() -> str | None:
    """What this machine lacks to do this, if anything."""
    if os.geteuid() or not all(
        map(shutil.which, ("chroot", "ip", "nsenter", "setpriv", "unshare"))
    ):
        return "root, chroot, ip, nsenter, setpriv and unshare"
    if not Path(_PYTHON).exists():
        return _PYTHON
    ROOT.joinpath("build").mkdir(exist_ok=True)
    with TemporaryDirectory(dir=ROOT / "build") as folder:
        for name in ("layer", "scratch", "root"):
            Path(folder, name).mkdir()
        code = 'mount -t overlay overlay -o "lowerdir=/,upperdir=layer,workdir=scratch" root'
        tried = subprocess.run(
            ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-ec", code],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    return f"the right to do this: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(kw_only=True)
class Image:
    """What a stage has made."""

    layer: Path
    """All that its steps have written."""
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def find(self, path: str) -> Path:
        """Where a file or folder that a step has made lies on this machine."""
        return self.layer / path.lstrip("/")

    def run(
        self,
        words: Sequence[str],
        *,
        mounts: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> list[str]:
        """The command that runs words in this image: nothing but its volumes can be written to.

        The process is number 1 of its own and has a network of its own, as in a container, and no
        rights but its user's.

        Args:
            words: the program and its arguments.
            mounts: more folders, ``HERE:THERE``, the latter in a volume or below /srv.
            environment: variables besides the image's.
        """
        volumes = [f"tmpfs:{volume}" for volume in self.volumes]
        return _entered(
            self,
            overlay=f"ro,{_overlay(self)}",
            words=words,
            mounts=[*(f"tmpfs:{hidden}" for hidden in _HIDDEN), *volumes, *mounts],
            environment={**self.environment, **(environment or {})},
            options=["--net", "--pid", "--fork", "--kill-child"],
        )


@contextmanager
def started(command: Sequence[str]) -> Iterator[Container]:
    """What :meth:`Image.run` gave, running until the block ends."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield Container(process=process)
    finally:
        process.kill()
        process.communicate()


@dataclass(kw_only=True)
class Container:
    """A process in an image."""

    process: subprocess.Popen[str]

    @property
    def first(self) -> int:
        """Its process 1, by the number that it has on this machine."""
        number = self.process.pid
        return int(Path(f"/proc/{number}/task/{number}/children").read_text().split()[0])

    def wait_for(self, message: str) -> None:
        """Read its log until a line holds this.

        Raises:
            AssertionError: it ended without one.
        """
        assert self.process.stderr
        log = []
        while message not in (line := self.process.stderr.readline()):
            log.append(line)
            assert line, "".join(log)

    def execute(self, image: Image, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run something beside it, as its user."""
        user, group = image.user.split(":")
        return subprocess.run(
            [
                *("nsenter", f"--target={self.first}", "--mount", "--net", "--pid", "--root"),
                *(f"--setuid={user}", f"--setgid={group}", "env", "-i"),
                *(f"{name}={value}" for name, value in image.environment.items()),
                *words,
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    def terminate(self) -> tuple[int, str]:
        """Ask it to end; its exit code, and all that it has logged and nobody has read."""
        os.kill(self.first, signal.SIGTERM)
        log = self.process.communicate(timeout=60)[1]
        return self.process.returncode, log


def build(
    dockerfile: Path, context: Path, work: Path, *, target: str, arguments: Mapping[str, str]
) -> Image:
    """Carry out the steps that a stage needs.

    Args:
        dockerfile: beside it lies the list of what the build does not get.
        context: what COPY copies from.
        work: a folder for the layers, which is emptied.
        target: the stage.
        arguments: in place of defaults of ARG.

    Raises:
        CalledProcessError: a step failed; it has said why.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    _, stages = read_stages(dockerfile)
    builder = _Builder(
        stages=stages,
        context=context,
        ignore=dockerfile.with_name(f"{dockerfile.name}.dockerignore"),
        work=work,
        arguments=dict(arguments),
    )
    return builder.image(target)


@dataclass(kw_only=True)
class _Builder:
    stages: dict[str, Stage]
    context: Path
    ignore: Path
    work: Path
    arguments: dict[str, str]
    made: dict[str, Image] = field(default_factory=dict)

    def image(self, name: str) -> Image:
        """The image of a stage, made once."""
        if name not in self.made:
            self.made[name] = self._make(self.stages[name])
        return self.made[name]

    def _make(self, stage: Stage) -> Image:
        layer = self.work / stage.name
        (layer / "usr/local/bin").mkdir(parents=True)
        (layer / "usr/local/bin/python").symlink_to(_PYTHON)
        image = Image(layer=layer, environment={"PATH": os.defpath + ":/usr/sbin:/usr/local/bin"})
        scope: dict[str, str] = {}
        for step in stage.instructions:
            match step.name:
                case "ARG":
                    scope |= {
                        name: self.arguments.get(name, value) for name, value in step.pairs.items()
                    }
                case "ENV":
                    image.environment |= {
                        name: _expanded(value, image.environment)
                        for name, value in step.pairs.items()
                    }
                case "WORKDIR":
                    image.folder = step.text
                    (layer / step.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(step, image)
                case "RUN":
                    self._run(step, image, scope)
                case "USER":
                    image.user = step.text
                case "VOLUME":
                    image.volumes = step.words
                case "HEALTHCHECK":
                    image.health = Instruction(
                        name="CMD", flags=[], text=step.text.removeprefix("CMD ")
                    ).words
                case "ENTRYPOINT":
                    image.entrypoint = step.words
                case "CMD":
                    image.command = step.words
        return image

    def _copy(self, step: Instruction, image: Image) -> None:
        *sources, target = step.words
        place = Path(image.folder, target).relative_to("/")
        for source in sources:
            origin = step.flag("from")
            found = self.image(origin).find(source) if origin else self.context / source
            to = image.layer / place
            if target.endswith("/") or len(sources) > 1:
                to /= found.name
            to.parent.mkdir(parents=True, exist_ok=True)
            if not found.is_dir():
                assert origin or is_sent(source, self.ignore), f"{source} is ignored"
                shutil.copy2(found, to)
            elif origin:
                shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copytree(found, to, symlinks=True, ignore=self._ignored, dirs_exist_ok=True)

    def _ignored(self, folder: str, names: list[str]) -> set[str]:
        within = Path(folder).relative_to(self.context)
        return {name for name in names if not is_sent(str(within / name), self.ignore)}

    def _run(self, step: Instruction, image: Image, scope: Mapping[str, str]) -> None:
        mounts = [f"tmpfs:{hidden}" for hidden in _HIDDEN if not self._is_in(hidden, image)]
        if target := re.search(r"type=cache,target=([^,\s]+)", step.flag("mount") or ""):
            cache = Path.home() / ".cache" / "centra-image-check"
            cache.mkdir(parents=True, exist_ok=True)
            mounts.append(f"{cache}:{target[1]}")
        # How this machine reaches its package index is not the Dockerfile's matter.
        passed = {name: value for name, value in os.environ.items() if _is_passed(name)}
        subprocess.run(
            _entered(
                image,
                overlay=_overlay(image),
                words=["sh", "-ec", step.text],
                mounts=mounts,
                environment={**passed, "HOME": "/root", **image.environment, **scope},
            ),
            check=True,
        )

    def _is_in(self, folder: str, image: Image) -> bool:
        return (image.layer / folder.lstrip("/")).exists()


def _entered(
    image: Image,
    *,
    overlay: str,
    words: Sequence[str],
    mounts: Sequence[str],
    environment: Mapping[str, str],
    options: Sequence[str] = (),
) -> list[str]:
    root = image.layer.parent / "root"
    root.mkdir(exist_ok=True)
    bound = "+all" if image.user == "0:0" else "-all"
    return [
        *("env", f"BOUND={bound}", "unshare", "--mount", *options, "--"),
        *("sh", "-ec", _ENTER, "sh", str(root), overlay, image.user, image.folder),
        *(*mounts, "--", *(f"{name}={value}" for name, value in environment.items()), *words),
    ]


def _overlay(image: Image) -> str:
    scratch = image.layer.with_name(f"{image.layer.name}-scratch")
    scratch.mkdir(exist_ok=True)
    return f"lowerdir=/,upperdir={image.layer},workdir={scratch}"


def _is_passed(name: str) -> bool:
    return name.startswith(("PIP_", "SSL_CERT_")) or name.lower().endswith("_proxy")


def _expanded(value: str, environment: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], ""), value)
