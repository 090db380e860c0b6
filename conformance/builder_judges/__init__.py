"""Judges of the builder that other projects wrote: their tables are read where they lie, none of them is kept here."""
