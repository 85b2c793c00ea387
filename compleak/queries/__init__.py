"""What models are asked, and the file in which the answers of all models of a variant lie: all that an attack sees."""
