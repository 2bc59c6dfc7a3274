"""Keeps this file itself out of the wheel; everything else is in setup.cfg."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithoutSetup(build_py):
    """The repository's root is the package, so `setup.py` would be taken for one of its modules."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules = super().find_package_modules(package, package_dir)
        return [entry for entry in modules if entry[:2] != ("proxyflash", "setup")]


setup(cmdclass={"build_py": BuildWithoutSetup})
