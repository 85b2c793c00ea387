"""What a run is: its settings, its name, where its files lie, which models it has, and how it is created and opened."""
