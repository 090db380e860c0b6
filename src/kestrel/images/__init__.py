"""Images on this host: pulled, built, imported, tagged and removed."""
