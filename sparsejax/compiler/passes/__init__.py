"""From a function to its graph, and from equations to kinds of node."""
