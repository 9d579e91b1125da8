"""Images: augmented, mixed, checked. The only modules of the data wing that import torch, when they are needed."""
