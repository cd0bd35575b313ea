"""Run pytest on a file as nobody: ``python as_ordinary_user.py FILE [ARGUMENT ...]``. Started by root.

The interpreter may live in a folder that only root can enter, so it, its packages and the project are shown under
another path, in a mount namespace of this process's own.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

NOBODY = 65_534
PROJECT = Path(__file__).resolve().parents[3]


def main() -> None:
    sys.path.insert(0, str(PROJECT))
    from cascade_rl.rewarding.sandbox.inside import kernel

    test = Path(sys.argv[1]).resolve().relative_to(PROJECT)
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root = tempfile.mkdtemp(prefix="ordinary-user-", dir="/mnt")  # not /tmp, which is the programs' own
    kernel.mount("shown", root, "tmpfs", 0, "mode=0755")
    places = {"python": sys.base_prefix, "site": sysconfig.get_path("purelib"), "project": str(PROJECT)}
    for name, folder in places.items():
        os.mkdir(f"{root}/{name}")
        kernel.mount(folder, f"{root}/{name}", None, kernel.MS_BIND | kernel.MS_REC)
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        kernel.unmount(root)
        os.rmdir(root)
        sys.exit(os.waitstatus_to_exitcode(status))
    executable = f"{root}/python/bin/{Path(os.path.realpath(sys._base_executable)).name}"  # type: ignore[attr-defined]
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.chdir(f"{root}/project")
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{root}/site:{root}/project",
    }  # fmt: skip
    command = [
        executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        str(test),
        *sys.argv[2:],
    ]
    os.execve(executable, command, environment)


if __name__ == "__main__":
    main()
