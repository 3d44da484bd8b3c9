"""The documentation as a site: its reference says what the code has, and its pages ask nobody else for anything."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

DOCS = ROOT / "docs"


def found(name: str) -> Iterator[Any]:
    """A module of docs/, as the site finds it."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def generated() -> Iterator[Any]:
    """What the reference is made by."""
    yield from found("generated")


@pytest.fixture(scope="module")
def docs() -> Iterator[Any]:
    """What looks for addresses in built pages."""
    yield from found("loads")


def test_the_reference_has_every_command_and_every_flag(generated: Any) -> None:
    import typer

    from api.cli import app

    text = generated.MAKERS["commands"]()
    pages = dict(re.findall(r"^## (bart [\w -]+)\n([\s\S]*?)(?=^## |\Z)", text, flags=re.MULTILINE))

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        for key, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {key}", inner)
        if not hasattr(command, "commands"):
            yield name, command

    known = dict(walk("bart", typer.main.get_command(app)))
    assert set(pages) == set(known)
    assert len(known) > 30
    for name, command in known.items():
        for parameter in command.params:
            if parameter.name != "help":
                for word in parameter.opts if parameter.opts[0].startswith("-") else [parameter.name.upper()]:
                    assert f"`{word}`" in pages[name], (name, word)


def test_the_reference_has_every_call_and_every_field_of_a_body(generated: Any) -> None:
    document = generated.http.openapi()
    calls, bodies = generated.http.http_calls(), generated.http.http_bodies()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"### {method.upper()} {path}\n" in calls
    for name in re.findall(r"\(#(\w+)\)", calls + bodies):
        assert f"### {name}\n" in bodies.lower()
    for field in document["components"]["schemas"]["HomeRequest"]["properties"]:
        assert f"`{field}`" in bodies


def test_the_reference_has_every_setting_with_its_default(generated: Any) -> None:
    from api.run.checked import Section, settings_of
    from api.run.settings import Settings

    text = generated.settings.settings()
    for name, field in settings_of(Settings).items():
        if isinstance(field.default, Section):
            assert f"## [{name}]" in text
            section = text.split(f"## [{name}]")[1].split("## [")[0]
            for key in settings_of(type(field.default)):
                assert f"| `{key}` |" in section, (name, key)
    assert "| `rows` | `6` |" in text
    assert "| `epsilon` | unset |" in text


def test_column_tables_are_those_of_the_schemas(generated: Any) -> None:
    from bart.log.record.columns import SCHEMA
    from recommender.events.table import EVENT_SCHEMA

    for place, schema in (
        ("bart.log.record.columns:SCHEMA", SCHEMA),
        ("recommender.events.table:EVENT_SCHEMA", EVENT_SCHEMA),
    ):
        rows = generated.formats.columns(place).splitlines()[2:]
        assert [row.split("`")[1] for row in rows] == schema.names


def test_pages_ask_for_nothing_that_is_not_made(generated: Any) -> None:
    for file in generated.pages():
        text = file.read_text()
        for maker in re.findall(r"<!-- generated: (\w+)", text):
            assert maker in generated.MAKERS, f"{file.name}: {maker}"
        assert text.count("<!-- generated:") == text.count("<!-- end -->"), file.name
    mark = "<!-- generated: constant bart.bundle:MANIFEST -->"
    assert generated.fill(f"a {mark}old<!-- end --> b") == f"a {mark}manifest.json<!-- end --> b"
    with pytest.raises(KeyError):
        generated.fill("<!-- generated: nothing --><!-- end -->")


def test_the_reference_in_the_checkout_is_what_the_code_says() -> None:
    """`make reference` writes it anew."""
    command = [sys.executable, str(DOCS / "generated.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_page_behind_the_code_is_named_and_then_written(
    generated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs/page.md"
    page.parent.mkdir()
    (tmp_path / "CONTRIBUTING.md").write_text("nothing generated\n")
    page.write_text("The file is <!-- generated: constant bart.bundle:MANIFEST -->old.json<!-- end -->.\n")
    monkeypatch.setattr(generated, "DOCS", page.parent)
    assert generated.main(["--check"]) == 1
    assert "docs/page.md is behind the code" in capsys.readouterr().out
    assert "old.json" in page.read_text()
    assert generated.main([]) == 0
    assert generated.main(["--check"]) == 0
    assert "-->manifest.json<!-- end -->." in page.read_text()


def test_a_public_name_stands_with_its_first_line_and_the_file_that_defines_it(generated: Any) -> None:
    text = generated.python.public("bart.ope: LoggedPages, PAGE_ESTIMATORS, estimate")
    assert "- [`LoggedPages`](../../bart/ope/records/pages.py): " in text
    assert "- [`PAGE_ESTIMATORS`](../../bart/ope/__init__.py): the table of `slate_ips`, " in text
    assert "- [`estimate`](../../bart/ope/estimate.py): " in text
    for name, file in re.findall(
        r"^- \[`(\w+)`\]\(../../(.+?)\): \S", (DOCS / "reference/python.md").read_text(), re.M
    ):
        assert re.search(rf"^(class |def )?{name}\b", (ROOT / file).read_text(), re.MULTILINE), (name, file)


def test_the_usual_changes_name_files_and_tables_that_are_there(generated: Any) -> None:
    from importlib import import_module

    pages = [(ROOT / name).read_text() for name in ("CONTRIBUTING.md", "docs/architecture.md")]
    assert len(generated.changes.CHANGES) == 5
    for _, _, lines, _, tests in generated.changes.CHANGES:
        assert (ROOT / tests).is_file(), tests
        for name, file in lines:
            there = getattr(import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")), name)
            assert isinstance(there, Mapping) or callable(there), (name, file)
            assert re.search(rf"^(def )?{name}\b", (ROOT / file).read_text(), re.MULTILINE), f"{name} is made elsewhere"
            assert all(f"`{name}` in [{file}]" in page for page in pages), (name, file)


def test_every_room_stands_in_the_picture_above_what_it_imports(
    generated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / "architecture.md").read_text()
    for package in ("bart", "recommender", "simulator", "api"):
        named = re.findall(rf"^({package}/\S+) ", generated.house.house(package), re.MULTILINE)
        assert len(named) > 5
        assert all((ROOT / room).exists() and f"\n{room} " in text for room in named)
    assert text.index("\nbart/learning/ ") < text.index("\nbart/log/store/ ") < text.index("\nbart/types/ ")
    monkeypatch.setattr(generated.house, "WAY", "bart/  [types] ──> [nowhere]\n")
    with pytest.raises(AttributeError, match="bart/nowhere is not there"):
        generated.house.way()


def test_what_is_promised_of_python_is_there() -> None:
    from importlib import import_module

    text = (DOCS / "compatibility.md").read_text().split("## Python")[1].split("\n## ")[0]
    modules, names = (
        [re.findall(r"`([\w.]+\.\w+)`", line.split(": ")[0]) for line in part.splitlines() if line.startswith("- ")]
        for part in text.split("and so do these names")
    )
    assert [path for line in modules for path in line] == [
        "bart.types",
        "bart.errors",
        "bart.ranking",
        "bart.ope",
        "recommender.importers",
    ]
    for path in (path for line in modules for path in line):
        module = import_module(path)
        assert all(hasattr(module, name) for name in getattr(module, "__all__", ("BartError",))), path
    assert sum(map(len, names)) > 5
    for path in (path for line in names for path in line if path.count(".") > 1):
        module, _, name = path.rpartition(".")
        assert callable(getattr(import_module(module), name)), path


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = set()
    for block in re.findall(r"```\{toctree\}\n([\s\S]*?)```", (DOCS / "index.md").read_text()):
        listed |= {line for line in block.splitlines() if line and not line.startswith(":")}
    pages = {file.relative_to(DOCS).with_suffix("").as_posix() for file in DOCS.rglob("*.md")}
    assert listed == {page for page in pages if not page.startswith("_build")} - {"index"}


def test_what_a_page_loads_from_elsewhere_is_found(tmp_path: Path, docs: Any) -> None:
    local = '<link rel="next" href="https://a/b"><a href="https://a"></a><img src="x.png"><script src="/y.js"></script>'
    (tmp_path / "page.html").write_text(local)
    (tmp_path / "style.css").write_text("a { background: url(z.png) }")
    assert docs.from_elsewhere(tmp_path) == []
    (tmp_path / "page.html").write_text(
        '<link rel="stylesheet" href="//a/s.css"><p style="background: url(https://b)">'
    )
    (tmp_path / "style.css").write_text('@import "http://c/t.css"; a { src: url("https://d/font.woff2") }')
    assert docs.from_elsewhere(tmp_path) == [
        "page.html: //a/s.css",
        "page.html: https://b",
        "style.css: http://c/t.css",
        "style.css: https://d/font.woff2",
    ]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path, docs: Any) -> None:
    """A small one with a page of each kind; `make docs` builds the whole site in the same way."""
    pytest.importorskip("sphinx", reason="the site's generator is not installed (pip install '.[docs]')")
    source = tmp_path / "docs"
    source.mkdir()
    for name in ("conf.py", "blocks.py", "docstrings.py", "generated.py", "generators", "loads.py", "_static"):
        (source / name).symlink_to(DOCS / name)
    (source / "settings.md").write_text((DOCS / "reference/settings.md").read_text().split("## [rules]")[0])
    (source / "index.md").write_text(
        "# A site\n\n<!-- not run: a reason -->\n    bart serve\n\n```{toctree}\nsettings\n```\n\n"
        "<!-- generated: public bart.reward.rewards: register_reward -->\na line\n<!-- end -->\n"
    )
    out = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(source), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (out / "index.html").read_text()
    assert "Not run by the tests: a reason" in page
    assert "register_reward" in page
    assert "a line" not in page  # but its docstring in full
    assert "share of the pages, the latest, that bart train measures on" in (out / "settings.html").read_text()
    assert len(list(out.rglob("*.html"))) >= 3
    assert "_static/site.css" in page
    assert docs.from_elsewhere(out) == []
