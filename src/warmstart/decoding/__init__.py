"""From encoded images to pixels: what is wanted of them, what reading may cost, and where they lie."""
