"""A probe that runs in TuneD's own Python: it loads profiles with TuneD's own loader, and prints the result as JSON.

`python -I -c SOURCE NAME...`. Nothing is applied, and no function of a profile may run a program but virt-what.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

_HARMLESS = frozenset(
    (
        "assertion",
        "assertion_non_equal",
        "calc_isolated_cores",
        "cpuinfo_check",
        "cpulist2devs",
        "cpulist2hex",
        "cpulist2hex_invert",
        "cpulist_invert",
        "cpulist_online",
        "cpulist_pack",
        "cpulist_present",
        "cpulist_unpack",
        "hex2cpulist",
        "intel_recommended_pstate",
        "kb2s",
        "lscpu_check",
        "regex_search_ternary",
        "s2kb",
        "strip",
        "virt_check",
    )
)
"""Functions that read the machine and change nothing."""


def main(names: list[str]) -> None:
    """Print the units that TuneD would apply on this machine: name, type and options, variables expanded."""
    import tuned.consts as consts  # type: ignore[import-not-found]
    from tuned.profiles.factory import Factory  # type: ignore[import-not-found]
    from tuned.profiles.functions.repository import Repository  # type: ignore[import-not-found]
    from tuned.profiles.loader import Loader  # type: ignore[import-not-found]
    from tuned.profiles.locator import Locator  # type: ignore[import-not-found]
    from tuned.profiles.merger import Merger  # type: ignore[import-not-found]
    from tuned.profiles.variables import Variables  # type: ignore[import-not-found]
    from tuned.utils.global_config import GlobalConfig  # type: ignore[import-not-found]

    load = Repository.load_func

    def load_harmless(repository: Any, name: str) -> Any:
        if name not in _HARMLESS:
            raise ImportError(name)
        return load(repository, name)

    Repository.load_func = load_harmless
    config = GlobalConfig()
    folders = str(config.get("profile_dirs", "") or "")
    locator = Locator([one.strip() for one in folders.split(",") if one.strip()] or list(consts.LOAD_DIRECTORIES))
    variables = Variables()
    profile = Loader(locator, Factory(), Merger(), config, variables).load(names)
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
        cpuinfo = config.get("cpuinfo_string", None) or stream.read()
    uname = config.get("uname_string", None) or " ".join(os.uname())
    units = [
        {
            "name": unit.name,
            "type": unit.type,
            "options": {key: variables.expand(value) for key, value in unit.options.items() if isinstance(value, str)},
        }
        for unit in profile.units.values()
        if unit.enabled and _matches(unit.cpuinfo_regex, cpuinfo) and _matches(unit.uname_regex, uname)
    ]
    sys.stdout.write(json.dumps(units))


def _matches(expression: str | None, text: str) -> bool:
    return expression is None or re.search(expression, text, re.MULTILINE) is not None


if __name__ == "__main__":
    main(sys.argv[1:])
