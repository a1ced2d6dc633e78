"""Plans: what a rollback would do, worked out before anything is done."""
