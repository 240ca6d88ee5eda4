"""Importer that compiles each module of a zip archive, as Ansible sends it, only once."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from zipimport import zipimporter


class CompilesOnce(zipimporter):
    """A zipimporter that does not compile a module merely to learn its file name.

    Python's own compiles a module for that, and again to run it (Lib/zipimport.py, `get_filename` and `get_code`, seen
    from Python 3.9 to 3.13). The archive holds no bytecode, so a host would pay for both at every task.
    """

    def get_filename(self, fullname: str) -> str:
        """Return where the module would be if the archive were a folder; ZipImportError where the archive lacks it."""
        end = "/__init__.py" if self.is_package(fullname) else ".py"
        return f"{self.archive}/{self.prefix}{fullname.rpartition('.')[2]}{end}"


def compile_once(package: ModuleSpec | None) -> None:
    """Install CompilesOnce for this package if it is in an archive; modules imported before stay as they are."""
    if package is not None and isinstance(package.loader, zipimporter):
        sys.path_hooks.insert(0, CompilesOnce)
        # Importing this module has already cached an importer for its folder, so that entry is replaced.
        for folder in package.submodule_search_locations or ():
            sys.path_importer_cache.pop(folder, None)
