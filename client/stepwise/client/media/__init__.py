"""Picture and video files that store the request that made them."""
