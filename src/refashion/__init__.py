"""Training runs that anybody can run again and get the same bits."""
