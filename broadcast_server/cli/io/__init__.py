"""What every command needs of its process: streams, log, signals, addresses, service manager."""
