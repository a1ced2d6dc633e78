"""The worker process: the Faust app, the engine that owns partitions, and what watches over both."""
