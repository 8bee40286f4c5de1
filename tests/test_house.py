"""The house keeps its rules: imports point one way, every knob is read, the package is whole when installed."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "segladder"
MAY_IMPORT = {  # room -> the rooms whose modules it may import
    "ops": set(),
    "metrics": set(),
    "data": set(),
    "nets": {"ops"},
    "methods": {"nets", "ops", "data", "metrics"},
    "protocols": {"methods", "data", "metrics", "ops"},
    "report": {"data", "metrics"},
    "runs": {"report", "protocols", "methods", "nets", "ops", "data", "metrics"},
    "processes": {"runs", "report"},
    "stages": {"processes", "runs", "report", "protocols", "methods", "ops", "data", "metrics"},
    "door": {"stages", "runs", "report", "protocols", "methods", "data"},
    "commands": {"door", "stages", "processes", "runs", "report", "protocols", "methods", "data"},
}
LONGEST_FILE, LARGEST_ROOM = 350, 20
FOR_ALL = {  # files beside the rooms that any of them may import -> what they need beside the standard library
    **{name: set() for name in ("configuration", "errors", "machine", "mask_values")},
    "command_line": {"hydra", "segladder"},
    "files": {"segladder"},
    "foreign": {"orjson"},
    "settings": {"annotated_types", "pydantic", "segladder"},
}
COMMANDS = {"bench", "data", "evaluate", "export", "leaderboard", "predict", "search", "train"}
MODULES = sorted(path for room in MAY_IMPORT for path in (PACKAGE / room).rglob("*.py"))


def imported(path):
    """Names of all modules a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = path.relative_to(PACKAGE).parts[0]
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("segladder.")} - {*FOR_ALL, room}
    assert rooms <= MAY_IMPORT[room] | {"__version__"}, f"{room} imports {rooms - MAY_IMPORT[room]}"


@pytest.mark.parametrize("name", sorted(FOR_ALL))
def test_what_every_room_may_import_needs_little(name):
    needed = {module.split(".")[0] for module in imported(PACKAGE / f"{name}.py")}
    assert needed - set(sys.stdlib_module_names) <= FOR_ALL[name]


@pytest.mark.parametrize("path", sorted((PACKAGE / "protocols").glob("*.py")), ids=lambda path: path.name)
def test_protocols_ask_methods_by_what_they_declare(path):
    """No `isinstance` on a method: how one is asked stands on its base class, so that a new kind needs no edit here."""
    tree = ast.parse(path.read_text())
    methods = {name.rpartition(".")[2] for name in imported(path) if name.startswith("segladder.methods.")}
    checks = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "isinstance"]
    named = {n.id for check in checks for n in ast.walk(check.args[1]) if isinstance(n, ast.Name)}
    assert not named & methods


def test_commands_holds_commands_and_nothing_else():
    assert {path.stem for path in (PACKAGE / "commands").glob("*.py")} - {"__init__"} == COMMANDS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_too_long(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("room", sorted({path.parent for path in MODULES}), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_room_is_crowded(room):
    assert len([path for path in room.glob("*.py") if path.stem != "__init__"]) <= LARGEST_ROOM


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda path: path.name)
def test_ops_need_torch_and_numpy_alone(path):
    allowed = {"torch", "numpy", "segladder", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imported(path)} <= allowed


def test_albumentations_is_imported_in_one_file():
    users = [p for p in PACKAGE.rglob("*.py") if any(name.split(".")[0] == "albumentations" for name in imported(p))]
    assert [path.name for path in users] == ["augmentation.py"]


def knobs(value):
    """All keys of nested mappings."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from knobs(item)


def names_in(path):
    """What a file's code reads by name: attributes, subscripts and keys as strings, parameters."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.arg):
            yield node.arg


READERS = [path for room in ("commands", "processes", "stages", "runs") for path in (PACKAGE / room).rglob("*.py")]


@pytest.mark.parametrize("path", sorted((ROOT / "conf").glob("*.yaml")), ids=lambda path: path.name)
def test_every_knob_of_a_command_is_read(path):
    read = {name for source in READERS for name in names_in(source)}
    choices = "".join(choice.read_text() for choice in (ROOT / "conf").glob("*/*.yaml"))
    handed_on = set(re.findall(r"\$\{(?:oc\.select:)?(\w+)", choices))  # to what a choice builds
    own = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key not in ("defaults", "hydra")}
    assert set(knobs(own)) <= read | handed_on


@pytest.mark.parametrize("path", sorted((ROOT / "conf").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_targets_lie_in_this_package(path):
    def targets(value):
        if isinstance(value, dict):
            yield from ([value["_target_"]] if "_target_" in value else [])
            for item in value.values():
                yield from targets(item)

    for target in targets(yaml.safe_load(path.read_text()) or {}):
        assert target.startswith("segladder.") or (target == "???" and path.stem.startswith("_"))


def test_the_wheel_holds_the_configuration(tmp_path):
    """Built, installed without this checkout on the path, and used from another folder."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    (tmp_path / "build.cfg").write_text(f"[build]\nbuild_base = {tmp_path / 'build'}\n")  # what lay there would slip in
    fresh = {**os.environ, "DIST_EXTRA_CONFIG": str(tmp_path / "build.cfg")}
    subprocess.run(build, check=True, capture_output=True, env=fresh)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    assert (target / "segladder" / "py.typed").is_file()  # its types are for its users too
    assert (target / "hydra_plugins" / "segladder_pool.py").is_file()
    assert (target / "segladder" / "report" / "page" / "questions.json").is_file()
    script = (
        f"import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        f"sys.path.insert(0, {str(target)!r}); import segladder.cli; assert {str(target)!r} in segladder.__file__;"
        "sys.argv = ['segladder', 'train', '--cfg', 'job']; sys.exit(segladder.cli.main())"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "name: fcn8s" in done.stdout and "_target_: segladder.data.sources.shapes.Shapes" in done.stdout
