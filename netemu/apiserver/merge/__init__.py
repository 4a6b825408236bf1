"""What a patch or an apply makes of an object, and whose its fields are."""
