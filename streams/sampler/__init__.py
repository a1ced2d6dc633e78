"""The sampler: reads the actual state of the resources that a worker owns, and publishes what is new."""
