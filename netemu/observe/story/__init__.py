"""One packet's way told hop by hop, and why not."""
