"""The sweep: arms of settings in random order, each of them measured, the host restored after every block.

Takes in arms and a request, gives out samples by arm. Imports `host`, `settings`, `first_token` and `measuring`; nobody
imports it.
"""
