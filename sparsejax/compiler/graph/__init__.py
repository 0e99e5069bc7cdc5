"""Values, nodes and the graph that holds them; here a node's op is whatever answers as one."""
