"""Images: augmented, mixed, checked. Of the data wing only these import torch, and only where images are augmented."""
