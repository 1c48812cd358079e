"""Sections of the page of benchmarks."""

from __future__ import annotations

from pathlib import Path

from bench.pages import TITLE, replace_section, write_section


def test_a_section_replaces_its_own_and_leaves_the_others(tmp_path: Path) -> None:
    """Whoever measures last, and however often, the other sections stay."""
    path = tmp_path / "page.md"
    for name, body in (("local", "a"), ("latency", "b\n"), ("local", r"c \1"), ("latency", "d"), ("local", "e")):
        write_section(path, name, body)
    sections = "".join(
        f"\n<!-- begin {name} -->\n\n{text}\n\n<!-- end {name} -->\n"
        for name, text in (("local", "e"), ("latency", "d"))
    )
    assert path.read_text() == TITLE + sections


def test_text_around_the_sections_stays() -> None:
    """A page may say more than was measured."""
    page = "# B\n\nbefore\n\n<!-- begin x -->\n\nold\n\n<!-- end x -->\n\nafter\n"
    assert replace_section(page, "x", "new") == page.replace("old", "new")
    assert replace_section(page, "y", "new").startswith(page)


def test_the_page_has_the_section_of_the_local_directory() -> None:
    """The page in the repository is one that the benchmarks can rewrite."""
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert page.startswith(TITLE)
    assert page.count("<!-- begin local -->") == page.count("<!-- end local -->") == 1
