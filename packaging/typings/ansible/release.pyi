"""The part of ansible.release that this project uses, typed."""

__version__: str
