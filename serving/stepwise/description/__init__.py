"""How a pipeline is described: tensors, components, manifests, and the fields of requests."""
