"""Packaging of resticd. What can be said declaratively is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # twisted/plugins has no __init__.py, so that Twisted's own package stays whole and the plugin is found beside its plugins.
    # All packages lie right here: said so, an editable install is one line in a .pth file, and twistd finds the plugin.
    package_dir={"": "."},
    packages=[*find_packages(include=["resticd", "resticd.*"]), "twisted.plugins"],
)
