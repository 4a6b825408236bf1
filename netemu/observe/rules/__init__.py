"""A node's rules as the kernel has them, in words."""
