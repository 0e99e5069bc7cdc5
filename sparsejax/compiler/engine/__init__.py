"""Regions as programs of the C++ engine, and the custom call that runs one."""
