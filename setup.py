"""The one extension, vxlan._fastpath.  Everything else stands in pyproject.toml.

PYVXLAN_NO_EXT=1       leave the extension out: a pure wheel with the Python engine
PYVXLAN_REQUIRE_EXT=1  a compiler that fails is an error instead of a warning

`fastpath/` holds sources and is no package: a top-level package of that name would
collide with a published distribution, and mapping it with package_dir breaks cimport.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

NO_EXT = os.environ.get("PYVXLAN_NO_EXT", "0") not in ("", "0")
REQUIRE_EXT = os.environ.get("PYVXLAN_REQUIRE_EXT", "0") not in ("", "0")

# No -march=native: a wheel runs on every processor of its architecture.
CFLAGS = ["-O3", "-Wall", "-Wextra"]

DIRECTIVES = {
    "language_level": 3,
    "binding": True,  # functions have a signature that stubtest can check
    "auto_pickle": False,
    "autotestdict": False,
}


class BuildFastpath(build_ext):
    """Cython and the C compiler, the generated C in build/; a failure may be survived."""

    def build_extension(self, ext: Extension) -> None:
        """Write the C, compile it."""
        from Cython.Build import cythonize

        (generated,) = cythonize(
            [Extension(ext.name, ext.sources)],
            include_path=["fastpath"],
            build_dir="build/cython",
            compiler_directives=DIRECTIVES,
        )
        ext.sources = generated.sources
        try:
            super().build_extension(ext)
        except (CompileError, LinkError) as error:
            if REQUIRE_EXT:
                raise
            self.warn(
                f"{ext.name} was not built ({error}): pyvxlan is installed without the "
                "compiled engine and will run on the slower Python engine. Install a C "
                "compiler and the Python headers, then install again; "
                "PYVXLAN_REQUIRE_EXT=1 turns this warning into an error."
            )


fastpath = Extension(
    "vxlan._fastpath",
    ["fastpath/_fastpath.pyx"],
    depends=sorted(map(str, Path("fastpath").glob("*.p[xy][dxi]"))),
    extra_compile_args=CFLAGS,
    optional=not REQUIRE_EXT,
)

setup(ext_modules=[] if NO_EXT else [fastpath], cmdclass={"build_ext": BuildFastpath})
