"""Stands for the package of this name on a rehearsal's machine."""
