"""How each layer's weights are stored: what may hold them, a model of the times, measurements."""
