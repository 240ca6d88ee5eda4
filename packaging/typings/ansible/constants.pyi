"""What this project uses of Ansible's constants, which are made when they are first imported."""

DEFAULT_LOCAL_TMP: str
DEFAULT_HOST_LIST: list[str]
