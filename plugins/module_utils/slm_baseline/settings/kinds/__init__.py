"""Kinds of settings, each in one file: how a user wants it, and how it is planned, persisted, recorded and restored.

A new kind is one file here and one line in registry.py; kind.py says what it must offer.
"""
