"""The part of ansible.utils.display that this project uses, typed."""

class Display:
    def error(self, msg: str, wrap_text: bool = ...) -> None: ...
