"""The house rules that no linter knows: they hold for the whole tree, whoever wrote the file."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import synsweep

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "operator"
MAX_LINES = 300  # more means two facts in one file
MAX_FUNCTION_LINES = 50
MADE_BY_TOOLS = {".git", ".venv", ".hypothesis", ".coverage", "__pycache__", "build", "dist"}

# In two halves each, so that this file does not name what it forbids.
FORBIDDEN = re.compile(
    "|".join(
        re.escape(head + tail)
        for head, tail in (
            ("pypi", ".org"),
            ("python", "hosted"),
            ("proxy.", "golang"),
            ("registry.", "npmjs"),
            ("deb.", "debian"),
            ("/wo", "rk/"),
            ("/ro", "ot/"),
            ("/far", "m/"),
        )
    )
)


def tracked_names() -> list[str]:
    """Ask git; nothing where there is no git, or no repository of one's own."""
    if not shutil.which("git"):
        return []
    argv = ["git", "ls-files", "-z"]
    listing = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return [name for name in listing.stdout.split("\0") if name]


def tracked_files() -> tuple[Path, ...]:
    """Every file of the project: what git tracks, or all of an unpacked archive."""
    paths = [ROOT / name for name in tracked_names()] or [
        path
        for path in ROOT.rglob("*")
        if not any(
            part in MADE_BY_TOOLS or part.endswith(("_cache", ".egg-info"))
            for part in path.relative_to(ROOT).parts
        )
    ]
    return tuple(path for path in paths if path.is_file())


TRACKED = tracked_files()
MODULES = tuple(path for path in TRACKED if path.suffix == ".py")
OPERATOR = tuple(path for path in MODULES if SOURCE in path.parents)
LOCKS = tuple((ROOT / "requirements").glob("*.txt"))


def named(paths: tuple[Path, ...]) -> list[object]:
    """Give each file as a test case under its own name."""
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def text_of(path: Path) -> str:
    """Return a file's text; what is not text has nothing to say here."""
    return path.read_bytes().decode("utf-8", errors="replace")


def test_the_tree_is_here() -> None:
    assert OPERATOR, "no module found: every other test of this file would pass for nothing"
    assert LOCKS


@pytest.mark.parametrize("path", named(MODULES))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(text_of(path))), "no module docstring"


@pytest.mark.parametrize("path", named(OPERATOR))
def test_one_file_holds_one_fact(path: Path) -> None:
    lines = text_of(path).count("\n")
    assert lines <= MAX_LINES, f"{lines} lines"


@pytest.mark.parametrize("path", named(OPERATOR))
def test_functions_fit_on_a_screen(path: Path) -> None:
    long = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


@pytest.mark.parametrize("path", named(OPERATOR))
def test_modules_are_named_by_what_they_decide_or_hold(path: Path) -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert not vague & {part.lower() for part in path.relative_to(SOURCE).with_suffix("").parts}


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{number}": line.strip()
        for path in TRACKED
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if FORBIDDEN.search(line)
    }
    assert not found


@pytest.mark.parametrize("path", named(LOCKS))
def test_locks_pin_by_hash_and_leave_the_index_to_the_machine(path: Path) -> None:
    lines = text_of(path).splitlines()
    assert not [line for line in lines if line.startswith("-") or "://" in line]
    pinned = [line for line in lines if line and not line.startswith((" ", "#"))]
    hashed = [line for line in pinned if "==" in line and line.endswith("\\")]
    assert pinned
    assert pinned == hashed


@pytest.mark.parametrize("path", named(LOCKS))
def test_every_lock_holds_the_versions_that_were_asked_for(path: Path) -> None:
    asked = re.findall(r"^([\w.-]+==[\w.]+)", text_of(path.with_suffix(".in")), flags=re.MULTILINE)
    locked = text_of(path).lower()
    assert not [pin for pin in asked if f"{pin.lower()} " not in locked]


def test_the_source_root_is_no_package() -> None:
    assert not (SOURCE / "__init__.py").exists(), "it would shadow the standard library's operator"
    assert "synsweep" not in str(sys.modules["operator"].__file__)


def test_the_changelog_has_this_version() -> None:
    headings = re.findall(r"^## \[([^\]]+)\]", text_of(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)
    assert synsweep.__version__ in headings


def test_the_manifests_and_the_image_have_this_version() -> None:
    kustomization = text_of(ROOT / "manifests" / "base" / "kustomization.yaml")
    assert re.search(rf"newTag: *\"?{re.escape(synsweep.__version__)}\"?\s", kustomization)


def test_the_readme_opens_with_its_purpose_and_the_two_commands() -> None:
    opening = text_of(ROOT / "README.md").splitlines()[:20]
    assert opening[0] == "# synsweep"
    commands = [line.split("#")[0].strip() for line in opening if line.startswith("make ")]
    assert commands == ["make demo", "make test"]


def test_what_the_pages_link_to_is_there() -> None:
    pages = [path for path in TRACKED if path.suffix == ".md"]
    broken = {
        f"{page.relative_to(ROOT)} -> {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text_of(page))
        if not (page.parent / target).exists()
    }
    assert not broken


def test_every_make_target_explains_itself() -> None:
    makefile = text_of(ROOT / "Makefile")
    targets = re.findall(r"^([a-z-]+):(?!=)", makefile, flags=re.MULTILINE)
    explained = re.findall(r"^([a-z-]+):.* ## .+", makefile, flags=re.MULTILINE)
    assert set(targets) - set(explained) == {"tools"}, "`tools` is part of `setup`"
