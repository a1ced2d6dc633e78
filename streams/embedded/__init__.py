"""What `reconciler dev` runs instead of servers: a broker and a Redis inside the process. Not for production."""
