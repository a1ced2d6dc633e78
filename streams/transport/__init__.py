"""From the brokers to the batches: Faust's transport with one message a fetched chunk and books that can be trusted."""
