"""Kinds of settings, each in one file: what a user wants of it, how it is planned, kept over boots, recorded, restored.

A new kind is one file here and one line in ../registry.py; kind.py says what it must offer.
"""
