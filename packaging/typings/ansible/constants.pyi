"""What the lookup of this project uses of Ansible's constants, which are made when they are first imported."""

DEFAULT_LOCAL_TMP: str
