"""The description of a pipeline: tensors, components, manifests and request fields."""
