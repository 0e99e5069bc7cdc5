"""What the kernels are on ARM: executed instructions per useful fmla, and fmla per cycle."""
