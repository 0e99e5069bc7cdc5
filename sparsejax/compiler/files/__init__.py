"""A compiled function in a file, and back.

The container is safetensors. Its header is JSON, so that whoever reads it has a parser of JSON, and
the graph stands in the header's metadata as JSON, too: one text for people and for every reader,
rather than words for machines beside it. `xla_ops/files/model.h` has the keys and
`xla_ops/files/weights.h` how weights are stored. There is one reader, in C++: what Python loads has
passed the checks that the C runtime makes.
"""
