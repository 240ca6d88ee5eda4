"""The kernel's interfaces: selectors and numbers, pools, hugetlbfs mounts."""
