"""The audit as JUnit XML: one test suite a host, one test case a knob, for Jenkins and GitLab.

Format: the `junit-10.xsd` of Jenkins' xUnit plugin.
"""

from __future__ import annotations

import re
from datetime import datetime
from xml.etree import ElementTree

from analysis.audit.answer import HostAudit
from analysis.audit.fleet import Audit

# XML 1.0 cannot contain these characters, not even escaped (https://www.w3.org/TR/xml/#charsets).
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(audit: Audit) -> str:
    """Return the document: a failure for each drifted knob or conflict, an error for a host without an answer."""
    root = ElementTree.Element("testsuites", name="slm-baseline audit")
    started = audit.started_at.removesuffix("Z")
    seconds = _instant(audit.finished_at) - _instant(audit.started_at)
    for name, host in audit.hosts.items():
        root.append(_suite(name, host, started))
    for counter in ("tests", "failures", "errors"):
        root.set(counter, str(sum(int(suite.get(counter, "0")) for suite in root)))
    root.set("time", f"{seconds.total_seconds():.3f}")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(name: str, host: HostAudit, started: str) -> ElementTree.Element:
    # Hosts are audited in parallel, so no host and no knob has a time of its own.
    legal = _legal(name)
    suite = ElementTree.Element("testsuite", name=legal, hostname=legal, timestamp=started, time="0", skipped="0")
    if host.problem is not None:
        case = _case(suite, legal, "audit")
        ElementTree.SubElement(case, "error", type=host.status, message=_legal(host.problem))
    for row in host.rows:
        case = _case(suite, legal, row.knob)
        if row.drifted:
            failure = ElementTree.SubElement(case, "failure", type="drift", message=_legal(str(row)))
            shown = (row.desired, row.runtime, row.persisted, row.boot, row.source)
            names = ("desired", "runtime", "persisted", "boot", "source")
            failure.text = _legal("\n".join(f"{key}: {value or '-'}" for key, value in zip(names, shown, strict=True)))
    for writer in host.competitors:
        case = _case(suite, legal, f"{writer.knob} at {writer.path}:{writer.line}")
        if not host.tolerated:
            ElementTree.SubElement(case, "failure", type="competing writer", message=_legal(str(writer)))
    suite.set("tests", str(len(suite)))
    for counter, tag in (("failures", "failure"), ("errors", "error")):
        suite.set(counter, str(len(suite.findall(f"testcase/{tag}"))))
    return suite


def _case(suite: ElementTree.Element, host: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=host, name=_legal(name), time="0")


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
