"""Packaging of resticd. What can be said declaratively is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # All packages lie right here: said so, an editable install is one line in a .pth file, and twistd finds the plugin.
    package_dir={"": "."},
    # twisted/plugins has no __init__.py: Twisted's own package stays whole and the plugin is found beside its plugins.
    packages=[*find_packages(include=["resticd", "resticd.*"]), "twisted.plugins"],
)
