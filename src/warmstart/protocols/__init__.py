"""Protocols: what arrives when and how a stage is trained, under one name; one short file each."""
