"""Videos through a causal autoencoder, slice by slice."""
