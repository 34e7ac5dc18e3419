"""Puts conf/ into a wheel as noise_reg/conf, where the installed package finds it. Everything else is in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable install finds conf/ in the checkout
            self.copy_tree("conf", str(Path(self.build_lib) / "noise_reg" / "conf"))


setup(cmdclass={"build_py": BuildWithConf})
