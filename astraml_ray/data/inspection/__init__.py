"""What a dataset holds, and what augmentation makes of it, for people."""
