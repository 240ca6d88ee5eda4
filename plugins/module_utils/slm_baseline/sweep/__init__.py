"""The sweep: arms of settings in random order, each of them measured, the host restored after every block.

Takes arms and a request, gives samples by arm. Imports `host`, `settings`, `first_token` and `measuring`; no package
imports it.
"""
