"""From a spec to a model: the train loop, its checkpoints, and the TorchTrainer that runs them."""
