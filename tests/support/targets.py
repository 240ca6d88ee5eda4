"""A host on which a first-token target is set up."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ansible.module_utils.slm_baseline.first_token.bytecode import fit_of
from ansible.module_utils.slm_baseline.first_token.cache import Cache
from ansible.module_utils.slm_baseline.first_token.fit import fit_text
from ansible.module_utils.slm_baseline.first_token.plan import Plan, PlanFile, to_text
from ansible.module_utils.slm_baseline.first_token.target import Ready, Target
from ansible.module_utils.slm_baseline.first_token.unit_files import wanted_files
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import FIRST_TOKEN

TARGET = Target("vllm", unit="vllm.service", ready=Ready("port", "8000"))
CACHE = Cache(TARGET.pycache, TARGET.pycache)


def install_target(root: Path) -> Host:
    """TARGET with one library file in its plan and one module in its cache."""
    host = Host(root)
    for folder in (f"{FIRST_TOKEN}/bin", "/srv", os.path.dirname(TARGET.boot_link)):
        os.makedirs(host.path(folder), exist_ok=True)
    os.makedirs(host.path(TARGET.pycache), mode=0o700)
    host.path("/srv/lib.so").write_bytes(b"x")
    host.path("/srv/mine.py").write_text("VALUE = 1\n")
    found = os.lstat(host.path("/srv/lib.so"))
    file = PlanFile("/srv/lib.so", False, found.st_ino, found.st_size, found.st_mtime_ns)
    host.path(TARGET.plan).write_text(to_text(Plan({"page_bytes": "4096"}, ["/srv"], [file])))
    host.path(TARGET.fit).write_text(fit_text(fit_of(host, TARGET, None, os.getuid(), CACHE, ["/srv/mine.py"])))
    texts = wanted_files(TARGET, [CACHE])
    for path, text in texts.items():
        os.makedirs(host.path(path).parent, exist_ok=True)
        host.path(path).write_text(text)
    os.symlink(TARGET.replay_unit, host.path(TARGET.boot_link))
    hashes = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    host.path(TARGET.record).write_text(json.dumps({"target": TARGET.to_json(), "files": hashes}))
    return host
