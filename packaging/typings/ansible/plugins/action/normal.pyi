"""The part of ansible.plugins.action.normal that this project uses, typed."""

from ansible.plugins.action import ActionBase

class ActionModule(ActionBase): ...
