"""Whether what is installed is what was tested together. vLLM, torch and transformers break in each other's company."""

from __future__ import annotations

import importlib.metadata as metadata
from collections.abc import Callable, Iterable

from packaging.requirements import Requirement

FIX = "`bash launch/quickstart.sh` makes an environment that works, from launch/locks"
BREAK_IMPORTS = ("torchvision", "torchaudio", "torchcodec")
"""Their builds on PyPI do not fit a CPU build of torch; transformers imports them where they are found."""


def installed_version(package: str) -> str | None:
    """Version of a distribution, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def environment_problems(
    requirements: Iterable[str] | None = None, version_of: Callable[[str], str | None] = installed_version
) -> list[str]:
    """One line for each package that is missing, of an untested version, or known to break others.

    ``requirements`` are this project's own, extras included; none are known where it runs without being installed.
    """
    if requirements is None:
        try:
            requirements = metadata.requires("cascade-rl") or []
        except metadata.PackageNotFoundError:
            requirements = []
    extra = "gpu" if version_of("vllm") else "cpu"
    problems = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        version = version_of(requirement.name)
        if version is None:
            problems.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} is {version}, tested is {requirement.specifier}")
    if extra == "cpu":
        problems += [f"{name} does not work beside a CPU build of torch" for name in BREAK_IMPORTS if version_of(name)]
    return problems
