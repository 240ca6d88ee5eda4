"""The wanted tuning, from the variables of group_vars."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slm_tuning
short_description: The wanted tuning, in the form that memory_info takes
description:
  - Puts C(thp_enabled), C(thp_defrag), C(thp_shmem_enabled), C(thp_khugepaged), C(thp_sizes), C(hugepages_pools),
    C(hugepages_overcommit) and C(hugetlbfs_mounts) together. A variable that is not set is not wanted.
  - A variable that is set and has no value, since its own template lacks something, is an error.
author: slm-baseline maintainers
options: {}
"""

EXAMPLES = r"""
- name: What is wanted of this host?
  ansible.builtin.debug:
    msg: "{{ lookup('slm_tuning') }}"
"""

RETURN = r"""
_raw:
  description: One dictionary with C(thp), C(pools), C(overcommit) and C(mounts).
  type: list
"""

from typing import Any

from ansible.plugins.lookup import LookupBase

THP = {
    "enabled": "thp_enabled",
    "defrag": "thp_defrag",
    "shmem_enabled": "thp_shmem_enabled",
    "khugepaged": "thp_khugepaged",
    "sizes": "thp_sizes",
}
"""Maps each option of the module thp to its variable."""


class LookupModule(LookupBase):
    """The class that Ansible looks for in this file."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        given = variables or {}

        def value(name: str, default: object) -> object:
            return self._templar.template(given[name]) if name in given else default

        return [
            {
                "thp": {option: value(name, None) for option, name in THP.items() if name in given},
                "pools": value("hugepages_pools", []),
                "overcommit": value("hugepages_overcommit", {}),
                "mounts": value("hugetlbfs_mounts", []),
            }
        ]
