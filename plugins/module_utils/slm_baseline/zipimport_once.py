"""Modules that arrive in a zip archive, as Ansible sends them, compiled once each."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from zipimport import zipimporter


class CompilesOnce(zipimporter):
    """Python's zipimporter, but for what it does to learn the file name of a module: it compiles the module.

    Then it compiles it again to run it (Lib/zipimport.py, `get_filename` and `get_code`, seen from Python 3.9 to 3.13).
    No archive keeps bytecode, so a host would pay for both at every task.
    """

    def get_filename(self, fullname: str) -> str:
        """Where the module would be if the archive were a folder; ZipImportError where the archive lacks it."""
        end = "/__init__.py" if self.is_package(fullname) else ".py"
        return f"{self.archive}/{self.prefix}{fullname.rpartition('.')[2]}{end}"


def compile_once(package: ModuleSpec | None) -> None:
    """Import what lies in this package by CompilesOnce, if it is in an archive; what was imported before stays."""
    if package is not None and isinstance(package.loader, zipimporter):
        sys.path_hooks.insert(0, CompilesOnce)
        # Importing this very module has settled who imports its neighbours.
        for folder in package.submodule_search_locations or ():
            sys.path_importer_cache.pop(folder, None)
