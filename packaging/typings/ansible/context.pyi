"""The part of ansible.context that this project uses, typed."""

from collections.abc import Mapping
from typing import Any

CLIARGS: Mapping[str, Any]
