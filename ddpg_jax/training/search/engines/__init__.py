"""What runs the programs of a sweep: processes of this machine, or those of a cluster."""
