"""Where the images come from, what they must be, and how they are split."""
