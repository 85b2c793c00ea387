"""What every folder may use: errors, files, devices, provenance, messages and the types of command-line flags."""
