"""Build the C kernels with the package, if a C compiler is here. What else is to be known of it stands in setup.cfg."""

import hashlib
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

SOURCE = Path("sgmcmc_prune/native/kernels.c")
#: What gcc and clang are asked for; a flag that a compiler does not know is left out.
FLAGS = (
    "-O3",
    "-march=native",  # the kernels know what they were built for, and are not loaded elsewhere
    "-std=gnu11",
    "-fschedule-insns",  # instructions that wait for each other apart: the noise is long chains of them
    "-fsched-pressure",
    "-ffp-contract=off",  # fused multiply-adds are written out: results do not depend on how a loop was compiled
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffinite-math-only",  # gradients are looked at before a step; without NaN a clamp is one instruction
    "-fno-signed-zeros",
    "-fno-wrapv",  # Python asks for wrapping integers, which keep loops from becoming vector code
    "-fopenmp-simd",
    # Threads are those of torch: its OpenMP runtime is loaded already, and is the one that the kernels find. Without it
    # the results are the same, on one thread.
    "-fopenmp",
)


class BuildKernels(build_ext):
    """A shared library, loaded by path: it is no Python module."""

    def build_extension(self, ext: Extension) -> None:
        """Compile and link with the flags that this compiler takes."""
        self.force = True  # another compiler or processor makes another library of the same source
        found = [flag for flag in FLAGS if self._takes(flag)]
        ext.extra_compile_args = found
        ext.extra_link_args = [flag for flag in found if flag == "-fopenmp"]
        super().build_extension(ext)

    def _takes(self, flag: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "nothing.c"
            source.write_text("int nothing(void) { return 0; }\n")
            try:
                objects = self.compiler.compile([str(source)], folder, extra_preargs=["-Werror", flag])
                self.compiler.link_shared_object(objects, str(source.with_suffix(".so")), extra_preargs=[flag])
            except (CompileError, LinkError):
                return False
            return True


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            "sgmcmc_prune.native._kernels",
            [str(SOURCE)],
            define_macros=[("SOURCE_HASH", f'"{hashlib.sha256(SOURCE.read_bytes()).hexdigest()}"')],
            libraries=["m"],
            optional=True,  # without a compiler the package is installed all the same
        )
    ],
)
