"""What every command sets up before its own work."""
