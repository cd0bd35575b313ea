"""A stage's identity follows everything that its reward or generator is made of, and nothing else."""

import sys
from types import SimpleNamespace

import pytest

from cascade_rl.recipe import RewardConfig
from cascade_rl.rewarding.loading import fingerprint, load_reward
from cascade_rl.source_code import project_files


@pytest.fixture
def package(tmp_path, request):
    """A package of several modules under a name of its own, with ``change(file)`` and ``mark()``, its fingerprint."""
    name = "pk_" + str(abs(hash(request.node.nodeid)))
    files = {
        f"{name}/__init__.py": '"""Only a docstring."""\n',
        f"{name}/domain.py": (
            f"from . import near\nfrom .sub import deep\nimport {name}_beside\nimport json\n"
            "def score(response):\n    from .late import X\n    return X\n"
        ),
        f"{name}/near.py": "",
        f"{name}/late.py": "X = 1\n",
        f"{name}/unrelated.py": "",
        f"{name}/sub/__init__.py": "from .inner import Y\n",
        f"{name}/sub/deep.py": "from ..upper import Z\n",
        f"{name}/sub/inner.py": "Y = 1\n",
        f"{name}/upper.py": "Z = 1\n",
        f"{name}_beside/__init__.py": f"import {name}_beside.more\n",
        f"{name}_beside/more.py": "",
        "not_imported.py": "",
    }

    def change(file, text="\nCHANGED = 1\n"):
        path = tmp_path / file.format(name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(file.format(name=name), "") + text)

    for file in files:
        change(file, "")

    def mark(**keys):
        return fingerprint(load_reward(RewardConfig(use=f"{name}.domain:score", **keys), [tmp_path]))

    yield SimpleNamespace(name=name, change=change, mark=mark, folder=tmp_path)
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


@pytest.mark.parametrize(
    "file",
    [
        "{name}/domain.py",
        "{name}/near.py",
        "{name}/late.py",  # imported inside the function
        "{name}/sub/__init__.py",
        "{name}/sub/deep.py",
        "{name}/sub/inner.py",  # by a package's own relative import
        "{name}/upper.py",  # by two dots
        "{name}/__init__.py",  # once it holds code
        "{name}_beside/__init__.py",
        "{name}_beside/more.py",
    ],
)
def test_a_change_anywhere_behind_it_shows(package, file):
    before = package.mark()
    assert package.mark() == before
    package.change(file)
    assert package.mark() != before


@pytest.mark.parametrize("file", ["{name}/unrelated.py", "not_imported.py", "{name}/json.py"])
def test_what_is_not_behind_it_does_not_count(package, file):
    before = package.mark()
    package.change(file)
    assert package.mark() == before


def test_a_packages_docstring_does_not_count(package):
    before = package.mark()
    package.change("{name}/__init__.py", '"""Another docstring."""\n')
    (package.folder / package.name / "__init__.py").write_text('"""Another docstring."""\n')
    assert package.mark() == before


def test_parameters_count_but_speed_does_not(package):
    before = package.mark(depth=1)
    assert package.mark(depth=1, concurrency=3) == before
    assert package.mark(depth=2) != before
    assert package.mark() != before


def test_nothing_installed_is_followed():
    loaded = load_reward(RewardConfig(use="rewards.math:verify"), [])
    files = set(project_files("rewards.math", loaded.search))
    assert {"rewards", "rewards.language", "rewards.limits", "rewards.math", "rewards.math_spelling"} <= files
    assert {name.partition(".")[0] for name in files} == {"rewards"}


def test_a_broken_sibling_counts_by_its_bytes(package):
    package.change("{name}/late.py", "\ndef (:\n")
    first = package.mark()
    package.change("{name}/late.py", "\ndef (;\n")
    assert package.mark() != first


def test_it_needs_no_import(package):
    """The plan hashes generators before anything of theirs is imported."""
    package.change("{name}_beside/more.py")
    files = set(project_files(f"{package.name}.domain", [package.folder]))
    assert {f"{package.name}.sub.inner", f"{package.name}_beside.more"} <= files
    assert not any(module.startswith(package.name) for module in sys.modules)


def test_the_frameworks_own_generator_counts_alone():
    files = set(project_files("cascade_rl.data.procedural", []))
    assert {"cascade_rl.data.procedural", "cascade_rl.data.procedural.sums"} <= files
    assert all(name.startswith("cascade_rl.data.procedural") for name in files)
