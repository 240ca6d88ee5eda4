"""What the kernel shows and takes: selectors and numbers, pools, hugetlbfs mounts."""
