"""The published methods, one paper a file, a folder for each time or way in which they act."""
