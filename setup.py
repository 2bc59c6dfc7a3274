"""Keeps this file itself out of the wheel, and builds the one part in C; everything else is in setup.cfg."""

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py


class BuildWithoutSetup(build_py):
    """The repository's root is the package, so `setup.py` would be taken for one of its modules."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules = super().find_package_modules(package, package_dir)
        return [entry for entry in modules if entry[:2] != ("proxyflash", "setup")]


class BuildLibrary(build_ext):
    """A shared library for a program in C, not for Python: its name has nothing of an interpreter's."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []


class WheelForAnyPython(bdist_wheel):
    """The library in C binds the wheel to a processor and a system, but to no version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_py": BuildWithoutSetup, "build_ext": BuildLibrary, "bdist_wheel": WheelForAnyPython},
    ext_modules=[
        Extension(
            "proxyflash.tools.adu.libproxyflash_adu",
            ["tools/adu/component_enumerator.c"],
            extra_compile_args=["-std=c11", "-fvisibility=hidden"],
            extra_link_args=["-pthread"],
            optional=True,  # A machine without a compiler installs the rest.
        )
    ],
)
