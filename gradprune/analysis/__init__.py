"""What a network does: diagnosis, explosions, sensitivity, verification, reports."""
