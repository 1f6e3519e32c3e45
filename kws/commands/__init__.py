"""What the commands of `kws` do, one module each."""
